"""Small tables that follow the contract, and a function that ingests them."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.ingestion.ingest import ingest
from components.ingestion.settings import IngestSettings
from refit.dataset import DatasetManifest

Rows = Sequence[Mapping[str, Any]]
DAY_0 = datetime(2024, 3, 1, 12, tzinfo=UTC)
AS_OF = datetime(2024, 4, 1, tzinfo=UTC)
LENIENT = {"largest_user": {"stop": None}, "null_like_ids": {"stop": None}}
"""Most tables here are so small that one user or one odd id is a large share."""


class Shop:
    """A folder with source files and the dataset made from them."""

    def __init__(self, folder: Path) -> None:
        self.source = folder / "source"
        self.out = folder / "dataset"
        self.source.mkdir()

    def write(self, name: str, rows: Rows, schema: pa.Schema | None = None) -> Path:
        path = self.source / f"{name}.parquet"
        pq.write_table(pa.Table.from_pylist(list(rows), schema), path)
        return path

    def write_text(self, name: str, text: str, encoding: str = "utf-8") -> Path:
        path = self.source / f"{name}.csv"
        path.write_bytes(text.encode(encoding))
        return path

    def ingest(self, **settings: Any) -> DatasetManifest:
        values = {
            "source": "files",
            "path": str(self.source),
            "as_of": AS_OF,
            "validation_start": "2024-03-08",
            "test_start": "2024-03-10",
            # Most tables here are so small that one bad row is a large share.
            "max_rejected": {"events": 0.9, "items": 0.9, "users": 0.9},
            "health": LENIENT,
        }
        return ingest(IngestSettings.parse(values | settings), self.out)

    def ingest_again(self, **settings: Any) -> DatasetManifest:
        """Ingest into a new folder, which is then the one that is read."""
        self.out = self.out.with_name(f"{self.out.name}-again")
        return self.ingest(**settings)

    def read(self, name: str) -> list[dict[str, Any]]:
        return pq.read_table(self.out / f"{name}.parquet").to_pylist()

    def read_rejected(self, name: str) -> list[dict[str, Any]]:
        return pq.read_table(self.out / "rejected" / f"{name}.parquet").to_pylist()


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@pytest.fixture
def make_events() -> Callable[..., list[dict[str, Any]]]:
    def make(*further: Mapping[str, Any], **columns: Any) -> list[dict[str, Any]]:
        """Twelve valid events, one a day, and further ones with the given changes."""
        valid = [_make_event(day) | columns for day in range(12)]
        return valid + [_make_event(3) | columns | dict(change) for change in further]

    return make


def _make_event(day: int) -> dict[str, Any]:
    return {
        "user_id": f"u{day % 4}",
        "item_id": f"i{day % 5}",
        "event_type": "view",
        "event_time": DAY_0 + timedelta(days=day),
    }


@pytest.fixture
def items() -> list[dict[str, Any]]:
    return [{"item_id": f"i{number}", "price": 10.0 + number} for number in range(5)]
