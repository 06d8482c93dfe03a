"""Texts by WordLlama: the mean of vectors of tokens, whose weights come with the package.

It knows 32,000 pieces of words and reads about as many texts a second as they can be cut into
pieces, on any processor. The package itself is not imported: it sets up logging, and compiles.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from components.encoding.settings import Device
from refit.errors import UsageError

READS: Literal["text"] = "text"
CODE = "1"
WEIGHTS = "weights/l2_supercat_256.safetensors"
TOKENIZER = "tokenizers/l2_supercat_tokenizer_config.json"
MOST_TOKENS = 512
"""Further tokens of a text are left out."""


def find_files(options: None, folder: Path | None) -> Sequence[Path]:
    """The weights and the tokenizer, in the installed package."""
    if folder is not None:
        raise UsageError("leave path out: its files come with the package wordllama")
    found = find_spec("wordllama")
    if found is None or not found.submodule_search_locations:
        raise UsageError("the package wordllama is not installed in this environment")
    package = Path(next(iter(found.submodule_search_locations)))
    files = [package / WEIGHTS, package / TOKENIZER]
    if missing := [path for path in files if not path.is_file()]:
        raise UsageError(f"{missing[0]} is missing; install the version in requirements.txt")
    return files


def open_encoder(
    options: None, folder: Path | None, device: Device, threads: int
) -> "WordLlamaEncoder":
    """Load weights and tokenizer. It has nothing to run on a GPU."""
    if device != "cpu":
        raise UsageError("runs on a CPU only: set its device to cpu")
    weights, tokenizer = find_files(None, None)
    return WordLlamaEncoder(weights, tokenizer)


class WordLlamaEncoder:
    """The text encoder, open."""

    def __init__(self, weights: Path, tokenizer: Path) -> None:
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        (table,) = load_file(weights).values()
        self._table: NDArray[np.float32] = np.asarray(table, dtype=np.float32)
        self._tokenizer: Any = Tokenizer.from_file(str(tokenizer))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MOST_TOKENS)
        self.size = int(self._table.shape[1])

    def encode(self, contents: Sequence[str]) -> NDArray[np.float32]:
        """[B, size] the mean vector of each text's tokens; zeros for a text without a token."""
        tokens = self._tokenizer.encode_batch_fast(list(contents), add_special_tokens=False)
        ids = [each.ids for each in tokens]
        lengths = np.array([len(each) for each in ids])
        flat = np.fromiter(chain.from_iterable(ids), np.int64, int(lengths.sum()))
        known = np.minimum(flat, len(self._table) - 1)
        means = np.zeros((len(ids), self.size), dtype=np.float32)
        there = np.flatnonzero(lengths)
        if len(there):
            starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])[there]
            sums = np.add.reduceat(self._table[known], starts, axis=0)
            means[there] = sums / lengths[there, None]
        return means
