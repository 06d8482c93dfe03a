"""How the powers of degrees and singular values change what spectral vectors find.

    python -m tests.benchmarks.bench_spectral FOLDER [--size 1024] [--users 10000]

A tenth of the training items of all users is held out, at random; the test file is not read. Each
row has the powers of the users' degrees, the items' and the singular values on each side, recall
and NDCG at 20 averaged over users, all items ranked but those that a user has, and the difference
in recall from the first row, with its standard error between users.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from components.training import spectral
from components.training.spectral import find_spectral_vectors

POWERS = (
    (0.5, 0.5, 0.5),
    (0.5, 0.5, 0.25),
    (0.3, 0.5, 0.25),
    (0.3, 0.4, 0.5),
    (0.3, 0.4, 0.25),
    (0.2, 0.4, 0.25),
    (0.3, 0.3, 0.25),
)
"""The first is GF-CF's; the fifth is Refit's."""
CUT, HELD_OUT, USERS_AT_ONCE = 20, 0.1, 1000
DISCOUNT = 1 / np.log2(np.arange(2, CUT + 2))


def main() -> int:
    """Print one row for each choice of powers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="holds train.txt, a user and their items a line")
    parser.add_argument("--size", type=int, default=1024, help="numbers of a vector")
    parser.add_argument("--users", type=int, default=10_000, help="measured, at most")
    options = parser.parse_args()
    users, items = read_pairs(options.folder / "train.txt")
    rng = np.random.default_rng(0)
    is_held_out = rng.random(len(users)) < HELD_OUT
    shape = (int(users.max()) + 1, int(items.max()) + 1)
    owned = _to_matrix(users[~is_held_out], items[~is_held_out], shape)
    held_out = _to_matrix(users[is_held_out], items[is_held_out], shape)
    asked = np.unique(users[is_held_out])
    asked = np.sort(rng.choice(asked, min(options.users, len(asked)), replace=False))
    _say(f"{shape[0]:,} users, {shape[1]:,} items, {len(asked):,} users measured")
    _say("user  item  values  recall@20  NDCG@20  difference")
    first = None
    for powers in POWERS:
        spectral.USER_POWER, spectral.ITEM_POWER, spectral.VALUE_POWER = powers
        found = find_spectral_vectors(
            users[~is_held_out], items[~is_held_out], shape[1], options.size
        )
        recall, ndcg = (
            np.concatenate(parts)
            for parts in zip(*measure(owned, held_out, asked, *found), strict=True)
        )
        first = recall if first is None else first
        gain = recall - first
        error = gain.std() / np.sqrt(len(gain))
        _say(
            "{:<5g} {:<5g} {:<6g}  ".format(*powers)
            + f"{recall.mean():<9.4f}  {ndcg.mean():<7.4f}  {gain.mean():+.4f} ({error:.4f})"
        )
    return 0


def read_pairs(path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Users [E] and items [E] of a file with a user and their items in each line."""
    lines = [np.array(line.split(), np.int64) for line in path.read_text().splitlines()]
    lines = [line for line in lines if len(line)]
    users = np.repeat([line[0] for line in lines], [len(line) - 1 for line in lines])
    return users, np.concatenate([line[1:] for line in lines])


def measure(
    owned: sp.csr_matrix,
    held_out: sp.csr_matrix,
    users: NDArray[np.int64],
    vectors: NDArray[np.float32],
    factors: NDArray[np.float32],
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Recall and NDCG at 20 of each user, in parts."""
    ideal = np.cumsum(DISCOUNT)
    embeddings = (vectors * factors[:, None]).T
    for part in np.array_split(users, -(-len(users) // USERS_AT_ONCE)):
        scores = (owned[part] @ vectors) @ embeddings
        scores[owned[part].nonzero()] = -np.inf
        top = np.argpartition(-scores, CUT, axis=1)[:, :CUT]
        order = np.argsort(-np.take_along_axis(scores, top, axis=1), axis=1)
        wanted = np.zeros(scores.shape, np.bool_)
        wanted[held_out[part].nonzero()] = True
        hits = np.take_along_axis(wanted, np.take_along_axis(top, order, axis=1), axis=1)
        n = wanted.sum(axis=1)
        yield hits.sum(axis=1) / n, hits @ DISCOUNT / ideal[np.minimum(n, CUT) - 1]


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _to_matrix(
    users: NDArray[np.int64], items: NDArray[np.int64], shape: tuple[int, int]
) -> sp.csr_matrix:
    return sp.csr_matrix((np.ones(len(users), np.float32), (users, items)), shape)


if __name__ == "__main__":
    sys.exit(main())
