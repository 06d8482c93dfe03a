"""Weaviate as the engine that searches the live items' vectors.

Each collection holds the items of one bundle, and the alias of an embedding version stands for the
collection that is complete: an alias that exists never stands for half of one. A search names the
alias of its own towers, so that vectors of different towers are never compared, whichever bundle
is champion.
"""

from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refit.bundle import Bundle
from refit.errors import RefitError, ServiceUnreachable, UsageError
from refit.predicates import Predicate
from refit.settings import Settings
from serving.engines.engine import ColumnKinds, EngineFailure, Hits
from serving.engines.filters import ITEM, say
from serving.engines.nodes import GrpcNodes, HttpNodes
from serving.engines.protocol import weaviate_pb2 as messages
from serving.engines.settings import WeaviateSettings
from serving.towers import Fallback

WRITER = "python -m serving.engines"


class CollectionMark(Settings):
    """What a collection holds, kept in its description.

    Attributes:
        bundle_id: The bundle whose items it was filled with.
        embedding_version: The towers whose vectors it has.
        as_of: The time at which the items are live.
        dimension: Length of the vectors.
    """

    bundle_id: str
    embedding_version: str
    as_of: datetime
    dimension: int

    @classmethod
    def of(cls, bundle: Bundle, dimension: int) -> "CollectionMark":
        """The mark of a bundle's collection."""
        manifest = bundle.manifest
        return cls(
            bundle_id=bundle.bundle_id,
            embedding_version=manifest.embedding_version,
            as_of=manifest.as_of,
            dimension=dimension,
        )


class Aliases:
    """The collections of a Weaviate cluster and the aliases that stand for complete ones.

    Args:
        nodes: The cluster.
        prefix: What the names of Refit's collections begin with.
    """

    def __init__(self, nodes: HttpNodes, prefix: str) -> None:
        self._nodes, self._prefix = nodes, prefix

    def alias_of(self, embedding_version: str) -> str:
        """The alias of an embedding version."""
        return f"{self._prefix}_{embedding_version}"

    def target(self, embedding_version: str) -> str | None:
        """The collection that an alias stands for; None without one.

        Raises:
            ServiceUnreachable: No node answers.
        """
        found = self._nodes.call("GET", f"aliases/{self.alias_of(embedding_version)}")
        return None if found is None else str(found["class"])

    def mark(self, collection: str) -> CollectionMark | None:
        """What a collection holds; None where it does not exist.

        Raises:
            ServiceUnreachable: No node answers.
            RefitError: It is none of Refit's.
        """
        found = self._nodes.call("GET", f"schema/{collection}")
        if found is None:
            return None
        try:
            return CollectionMark.model_validate_json(found.get("description") or "")
        except ValueError:
            raise RefitError(
                f"Weaviate's collection {collection} is none of Refit's; set "
                "engine.weaviate.collections to another name"
            ) from None

    def point(self, embedding_version: str, collection: str) -> None:
        """Let the alias stand for a collection from now on, in one step."""
        alias = self.alias_of(embedding_version)
        if self.target(embedding_version) is None:
            self._nodes.call("POST", "aliases", {"alias": alias, "class": collection})
        else:
            self._nodes.call("PUT", f"aliases/{alias}", {"class": collection})

    def drop_alias(self, embedding_version: str) -> None:
        """Remove an alias."""
        self._nodes.call("DELETE", f"aliases/{self.alias_of(embedding_version)}")

    def all(self) -> dict[str, str]:
        """The collections of Refit's aliases, by alias."""
        found = (self._nodes.call("GET", "aliases") or {}).get("aliases") or []
        mine = f"{self._prefix}_"
        return {one["alias"]: one["class"] for one in found if one["alias"].startswith(mine)}

    def collections(self) -> list[str]:
        """The names of Refit's collections."""
        found = (self._nodes.call("GET", "schema") or {}).get("classes") or []
        return [one["class"] for one in found if one["class"].startswith(f"{self._prefix}_")]

    def create(self, definition: dict[str, Any]) -> None:
        """Create a collection."""
        self._nodes.call("POST", "schema", definition)

    def drop(self, collection: str) -> None:
        """Remove a collection with all that it holds."""
        self._nodes.call("DELETE", f"schema/{collection}")


class WeaviateEngine:
    """Searches a Weaviate cluster; threads share it. Create it after a fork, not before.

    Args:
        settings: The cluster.
    """

    def __init__(self, settings: WeaviateSettings) -> None:
        self._settings = settings
        self._grpc = GrpcNodes(settings)
        self._aliases = Aliases(HttpNodes(settings), settings.collections)

    def check(self, bundle: Bundle) -> None:
        """Check that the alias of a bundle's towers stands for its items, or for later ones.

        Raises:
            ServiceUnreachable: No node answers, or the items are not there yet.
        """
        manifest = bundle.manifest
        try:
            target = self._aliases.target(manifest.embedding_version)
            mark = self._aliases.mark(target) if target else None
        except RefitError as error:  # a key that is wrong, for example, is not the bundle's fault
            raise ServiceUnreachable(str(error)) from None
        if mark is None:
            raise ServiceUnreachable(
                f"Weaviate does not hold the items of {bundle.bundle_id} yet; does {WRITER} run?"
            )
        if mark.embedding_version != manifest.embedding_version:
            raise ServiceUnreachable(
                f"Weaviate's collection {target} has vectors of the embedding version "
                f"{mark.embedding_version}, not of {manifest.embedding_version}"
            )
        if mark.as_of < manifest.as_of:
            raise ServiceUnreachable(
                f"Weaviate still holds the items of {mark.bundle_id}, not those of "
                f"{bundle.bundle_id}; does {WRITER} run?"
            )

    def search(
        self,
        embedding_version: str,
        query: NDArray[np.float32],
        k: int,
        condition: Predicate | None,
        kinds: ColumnKinds,
        at_least: int = 0,
    ) -> Hits:
        """Find the k nearest items; see ``SearchEngine``.

        Raises:
            EngineFailure: No node gave an answer in time.
        """
        name = self._aliases.alias_of(embedding_version)
        return self.search_collection(name, query, k, condition, kinds, at_least)

    def search_collection(
        self,
        name: str,
        query: NDArray[np.float32],
        k: int,
        condition: Predicate | None,
        kinds: ColumnKinds,
        at_least: int = 0,
    ) -> Hits:
        """Search a collection by its name, or by an alias; else as ``search``."""
        import grpc

        request = messages.SearchRequest(
            collection=name,
            consistency_level=messages.CONSISTENCY_LEVEL_ONE,
            properties=messages.PropertiesRequest(non_ref_properties=[ITEM]),
            metadata=messages.MetadataRequest(distance=True),
            limit=k,
            near_vector=messages.NearVector(vector_bytes=_as_bytes(query)),
            filters=say(condition, kinds).filters,
            uses_123_api=True,
            uses_125_api=True,
            uses_127_api=True,
        )
        deadline, attempt = self._settings.deadline_ms / 1000, self._settings.attempt_ms / 1000
        try:
            reply = self._grpc.call(
                "Search", request, deadline, attempt, lambda found: len(found.results) >= at_least
            )
        except grpc.RpcError as error:
            raise EngineFailure(_reason_of(error), error.details() or "") from None
        except UsageError as error:
            raise EngineFailure(Fallback.SEARCH_REFUSED, str(error)) from None
        found = reply.results
        distances = np.array([one.metadata.distance for one in found], dtype=np.float32)
        ids = tuple(one.properties.non_ref_props.fields[ITEM].text_value for one in found)
        return Hits(ids, -distances)

    def close(self) -> None:
        """Close the connections."""
        self._grpc.close()


def _as_bytes(vector: NDArray[np.float32]) -> bytes:
    return np.ascontiguousarray(vector, dtype="<f4").tobytes()


def _reason_of(error: Any) -> Fallback:
    import grpc

    code = error.code()
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return Fallback.SEARCH_SLOW
    if code == grpc.StatusCode.UNAVAILABLE:
        return Fallback.SEARCH_UNREACHABLE
    if "could not find class" in (error.details() or ""):
        return Fallback.SEARCH_NOT_LOADED
    return Fallback.SEARCH_REFUSED
