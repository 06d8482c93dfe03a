import json
from collections.abc import Callable
from pathlib import Path

import pytest

from refit.bundle import Bundle, assemble_bundle
from tests.factories import name_subject


@pytest.fixture
def make_parts(tmp_path: Path) -> Callable[..., dict[str, Path]]:
    """Hand-made parts of a bundle, small but complete."""

    def make(
        embedding_version: str = "t1",
        passed: bool | None = True,
        index_towers: str | None = None,
        reference_towers: str | None = None,
        note: str = "",
    ) -> dict[str, Path]:
        root = tmp_path / f"parts-{len(list(tmp_path.iterdir()))}"
        model = {
            "embedding_version": embedding_version,
            "trained_from": "2025-01-01T00:00:00Z",
            "packages": {},
        }
        index = {
            "embedding_version": index_towers or embedding_version,
            "as_of": "2025-03-01T00:00:00Z",
        }
        verdict = {"passed": passed, "reasons": [] if passed else ["too weak"]}
        files = {
            "model/query_tower/1/saved_model.pb": "query",
            "model/item_tower/1/saved_model.pb": "item",
            "model/features.json": json.dumps({"dataset_fingerprint": "f00"}),
            "model/model.json": json.dumps(model),
            "index/index.json": json.dumps(index),
            "index/index.faiss": "vectors" + note,
            "reference/thresholds.json": json.dumps(
                {"embedding_version": reference_towers or embedding_version}
            ),
            "evaluation/metrics.json": "{}",
        }
        if passed is not None:
            files["evaluation/verdict.json"] = json.dumps(
                verdict | {"measurements": {}, "checks": []}
            )
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        name_subject(root)
        return {part: root / part for part in ("model", "index", "reference", "evaluation")}

    return make


@pytest.fixture
def make_bundle(
    tmp_path: Path, make_parts: Callable[..., dict[str, Path]]
) -> Callable[..., Bundle]:
    def make(**kwargs: object) -> Bundle:
        return assemble_bundle(**make_parts(**kwargs), out_root=tmp_path / "assembled")

    return make
