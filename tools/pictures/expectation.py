"""The picture of the explanation of drift: daily means, what is expected of them, and a jump.

python -m tools.pictures.expectation
"""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from monitoring.expectation import Days, Floats, Noise, compare, fit_variogram

OUT = Path(__file__).resolve().parents[2] / "docs" / "pictures" / "expectation.svg"
EARLIER, FEW, LAST, JUMP = 28, 38, 49, 45
"""Earlier days; the first day with many rows again; the end; the first day of the jump."""
RATE = 0.01
LINE, BAND, DRIFT = "#444444", "#9ecae1", "#D55E00"


def make_days() -> tuple[Days, Noise]:
    """A share of listings by day: weekends, a slow trend, and a jump at the end."""
    random = np.random.default_rng(1)
    at = np.arange(LAST, dtype=np.float64)
    rows = np.where((at >= EARLIER) & (at < FEW), 250.0, 4000.0)
    share = 0.29 + 0.07 * (at % 7 >= 5) + 0.0015 * at + 0.05 * (at >= JUMP)
    spread = np.sqrt(0.23 / rows + 0.004**2)
    means = (share + random.normal(size=LAST) * spread)[:, None]
    days = Days(means, rows, at, (at % 7).astype(np.int64), np.zeros(LAST))
    return days, Noise(0.23, 0.23**2)


def find_bands(days: Days, noise: Noise) -> Floats:
    """[LAST - EARLIER, 3] lowest and highest mean that is no drift, and whether the day drifts."""
    bands = []
    known = list(range(EARLIER))
    for day in range(EARLIER, LAST):
        earlier = days.take(np.array(known))
        variogram = fit_variogram(earlier, noise)
        window = days.take(np.array([day]))
        found = compare(earlier, noise, variogram, window)
        far = Days(found.expected[None] + 1, window.n, window.at, window.slot, window.age)
        chance = 1 - compare(earlier, noise, variogram, far).value ** 2
        half = np.sqrt(chance + found.threshold(RATE) ** 2)
        middle = float(found.expected[0])
        drifts = found.p_value < RATE
        bands.append((middle - half, middle + half, drifts))
        if not drifts:
            known.append(day)
    return np.array(bands)


def draw() -> None:
    """Draw the picture."""
    days, noise = make_days()
    bands = find_bands(days, noise)
    mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "refit", "font.size": 9}
    figure = Figure(figsize=(8.2, 3.1), layout="constrained")
    axes = figure.subplots()
    for spine in ("top", "right"):
        axes.spines[spine].set_visible(False)
    share = days.means[:, 0]
    later = np.arange(EARLIER, LAST)
    axes.plot(days.at, share, color="#bbbbbb", linewidth=0.8, zorder=1)
    low, high = bands[:, 0], bands[:, 1]
    axes.fill_between(later, low, high, color=BAND, alpha=0.7, linewidth=0, step="mid", zorder=0)
    drifts = later[bands[:, 2] > 0]
    calm = np.setdiff1d(np.arange(LAST), drifts)
    axes.scatter(calm, share[calm], s=13, color=LINE, zorder=3)
    axes.scatter(drifts, share[drifts], s=34, color=DRIFT, marker="^", zorder=4)
    top = 0.53
    axes.set_ylim(0.24, top)
    axes.set_xlim(-1, LAST)
    for start, end, text in (
        (0, EARLIER, "earlier days, 4,000 rows each"),
        (EARLIER, FEW, "250 rows"),
        (FEW, LAST, "4,000 rows"),
    ):
        axes.axvline(end - 0.5, color="#dddddd", linewidth=0.8, zorder=0)
        axes.text((start + end - 1) / 2, top - 0.012, text, ha="center", color=LINE)
    axes.text(JUMP - 0.6, share[JUMP] + 0.03, "a jump", ha="center", color=DRIFT)
    axes.text(9, share[:14].max() + 0.01, "weekends", ha="center", color=LINE)
    axes.set_xlabel("day")
    axes.set_ylabel("share of one category")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    figure.savefig(OUT, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    draw()
