"""The champion on its own features: other inputs, the same queries and candidates."""

from collections import defaultdict
from pathlib import Path

import numpy as np

from components.evaluation.data import CandidateSnapshot, EvaluationData, Longs, Queries
from components.evaluation.ranking import ScoreBlock
from components.evaluation.towers import TowerScorer
from refit.champion_features import TABLES_FOLDER, ChampionFeatures
from refit.errors import RefitError
from refit.features import FeaturesManifest

Key = tuple[str, str, int]
"""User, item and time of a query."""


class OwnFeaturesScorer:
    """Scores the model's queries and candidates with the champion's towers and inputs.

    A query is found in the champion's features by its user, item and time, a candidate by its id.

    Args:
        data: The new model's features.
        own: The champion's features of the same dataset.
        champion: The champion's bundle folder.

    Raises:
        RefitError: Queries are missing in the champion's features.
    """

    def __init__(self, data: EvaluationData, own: EvaluationData, champion: Path) -> None:
        self._data, self._own = data, own
        self._towers = TowerScorer(own, champion, FeaturesManifest.read(champion))
        self._position_of: dict[Key, list[int]] = defaultdict(list)
        for position, key in enumerate(_keys(own, own.queries["test"].rows)):
            self._position_of[key].append(position)
        rows = np.sort(data.queries["test"].positives.rows)
        self._first_row, self._matched = int(rows[0]), self._match(rows)
        number = {item_id: i for i, item_id in enumerate(own.catalogue.item_id)}
        self._own_item = np.array([number.get(i, -1) for i in data.catalogue.item_id])

    def at(self, queries: Queries, snapshot: CandidateSnapshot) -> ScoreBlock:
        """Prepare to score a snapshot's candidates, using only what was known at its time."""
        positions = self._matched[queries.rows - self._first_row]
        return self._towers.at(
            self._own.queries["test"].take(positions), self._find_candidates(snapshot)
        )

    def _match(self, rows: Longs) -> Longs:
        """[E] positions of the events in the champion's; the k-th of equal ones is the k-th."""
        used: dict[Key, int] = defaultdict(int)
        found = []
        for key in _keys(self._data, rows):
            same = self._position_of.get(key, [])
            if used[key] >= len(same):
                raise RefitError(f"its own features lack the query of {key[0]} for {key[1]}")
            found.append(same[used[key]])
            used[key] += 1
        return np.array(found, dtype=np.int64)

    def _find_candidates(self, snapshot: CandidateSnapshot) -> CandidateSnapshot:
        """The same candidates, in the same order, as the champion's features describe them."""
        numbers = np.flatnonzero(self._own.snapshot_times == snapshot.time)
        if not len(numbers):
            raise RefitError("the champion's own features lack a snapshot")
        own = self._own.read_candidates(int(numbers[0]))
        wanted = self._own_item[snapshot.items]
        order = np.argsort(own.items)
        place = np.searchsorted(own.items, wanted, sorter=order).clip(max=len(order) - 1)
        position = order[place]
        if np.any(own.items[position] != wanted):
            raise RefitError("the champion's own features lack a candidate")
        return own.take(position)


def open_own_features(
    data: EvaluationData, champion: Path, folder: Path
) -> OwnFeaturesScorer | str | None:
    """The champion on its own features; why they do not serve; None if it needs none.

    Args:
        data: The new model's features.
        champion: The champion's bundle folder.
        folder: What the features step wrote for the champion.
    """
    record = ChampionFeatures.read(folder)
    if not record.needed:
        return None
    if record.problem:
        return f"the champion's own features cannot be built: {record.problem}"
    try:
        return OwnFeaturesScorer(data, EvaluationData(folder / TABLES_FOLDER), champion)
    except (RefitError, OSError) as error:
        return f"it cannot be judged on its own features: {error}"


def _keys(data: EvaluationData, rows: Longs) -> list[Key]:
    log = data.log
    users = log.user_ids[log.user[rows]]
    items = data.catalogue.item_id[log.item[rows]]
    return [
        (str(user), str(item), int(time))
        for user, item, time in zip(users, items, log.time[rows], strict=True)
    ]
