"""The vectors of a bundle whose search happens elsewhere: on disk, read where one is needed."""

from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from refit.errors import RefitError
from refit.index import VECTORS_FILE, IndexManifest, ItemIndex


class StoredVectors(ItemIndex):
    """The vectors of an index folder without its index.

    Args:
        vectors: [N, D] memory-mapped vectors of the live items.
    """

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        super().__init__(None, vectors)

    @classmethod
    def read(cls, folder: Path) -> "StoredVectors":
        """Open the vectors of an index folder.

        Raises:
            RefitError: Vectors and manifest disagree.
        """
        manifest = IndexManifest.read(folder)
        vectors = np.load(folder / VECTORS_FILE, mmap_mode="r")
        expected = (manifest.n_live, manifest.dimension)
        if vectors.shape != expected:
            raise RefitError(
                f"{folder / VECTORS_FILE} is {vectors.shape}, but the manifest has {expected}; "
                "build the index again"
            )
        return cls(vectors)

    def search(self, *_: Any) -> NoReturn:
        """There is nothing to search in this process."""
        raise RefitError("this bundle is searched by an engine on other machines")

    def find(self, *_: Any) -> NoReturn:
        """As ``search``."""
        self.search()
