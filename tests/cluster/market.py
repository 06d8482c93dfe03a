"""The simulated marketplace of the cluster tests, and its tables in the object store."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from serving.client import RecommenderClient
from simulation.history import write_tables
from simulation.marketplace import Marketplace
from tests.machine.object_store import ObjectStore

MARKET = "s3://refit/market"
HISTORY_DAYS, STABLE_DAYS, CHANGED_DAYS = 14, 3, 5
REQUESTS_PER_DAY = 150


class Market:
    """The simulated marketplace, and its tables in the object store."""

    def __init__(self, store: ObjectStore, folder: Path) -> None:
        days = HISTORY_DAYS + STABLE_DAYS + CHANGED_DAYS
        settings = {
            "start": str(datetime.now(UTC).date() - timedelta(days=days)),
            "days": HISTORY_DAYS,
            "n_shoppers": 400,
            "listings_per_day": 60,
            "visits_per_day": 600,
            "vector_size": 8,
            "requests_per_day": REQUESTS_PER_DAY,
            "changes": [{"name": "new_category_wave", "day": HISTORY_DAYS + STABLE_DAYS}],
        }
        self._store, self._folder = store, folder
        self._market = Marketplace(settings)
        self.answers = 0
        self.publish()

    @property
    def now(self) -> datetime:
        """The end of the last simulated day."""
        return self._market.now

    def publish(self) -> None:
        """Upload the current tables to the object store."""
        write_tables(self._market, self._folder)
        files = self._store.files()
        for table in self._folder.glob("*.parquet"):
            files.put_file(str(table), f"{MARKET.removeprefix('s3://')}/{table.name}")

    def simulate(self, days: int, client: RecommenderClient, publish: bool = True) -> None:
        """Simulate days whose shoppers use the recommender, and count its answers."""

        def recommend(
            user_id: str,
            context: dict[str, str],
            history: list[dict[str, Any]],
            k: int,
            time: datetime,
        ) -> tuple[str, list[str]]:
            answer = client.recommend(
                user_id=user_id, context=context, history=history, k=k, time=time
            )
            self.answers += 1
            return answer["request_id"], [item["item_id"] for item in answer["items"]]

        for _ in range(days):
            self._market.simulate_day(recommend)
        if publish:
            self.publish()
