"""The fixed parts of the simulated market: taxonomy, brands, fashion, seasons, image encoder."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulation import calendar
from simulation.settings import MarketChange, SimulationSettings

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

N_STYLE = 8
"""Dimensions of latent style; the last two are mainly used by the new categories."""

SIZES: dict[str, tuple[str, ...]] = {
    "clothes": ("XS", "S", "M", "L", "XL", "XXL"),
    "shoes": tuple(str(number) for number in range(36, 46)),
    "kids": ("92", "104", "116", "128", "140", "152"),
    "one size": ("one size",),
}
SYSTEMS = tuple(SIZES)
SYSTEM_LENGTHS = np.array([len(labels) for labels in SIZES.values()])
CONDITIONS = ("new", "like new", "good", "fair")
CONDITION_SHARES = (0.15, 0.3, 0.4, 0.15)
WORN_SHARES = (0.02, 0.08, 0.3, 0.6)
CONDITION_VALUE = np.array([0.4, 0.2, 0.0, -0.5], dtype=np.float32)
CONDITION_LOG_PRICE = np.array([0.3, 0.15, 0.0, -0.3], dtype=np.float32)
COLOURS = ("black", "white", "grey", "blue", "green", "red", "pink", "brown", "beige", "yellow")
COUNTRIES = ("DE", "FR", "NL", "ES", "IT")
DEPARTMENTS = ("women", "men", "kids", "outdoor")
NEW_DEPARTMENT = 3


@dataclass(frozen=True)
class Category:
    """A category_2 of the simulated market.

    Attributes:
        department: Its category_1.
        word: The product type; the category_2 is ``department word``.
        kinds: Prefixes of its category_3.
        system: Its size system, a key of ``SIZES``.
        group: Categories of one group have the same shift of taste.
        price: Typical price in euros.
        peak: Day of the year with the highest demand.
        share: Relative supply within the market.
    """

    department: str
    word: str
    kinds: tuple[str, ...]
    system: str
    group: int
    price: float
    peak: int
    share: float

    @property
    def name(self) -> str:
        """The category_2."""
        return f"{self.department} {self.word}"


CATEGORIES = (
    Category("women", "dresses", ("mini", "midi", "maxi"), "clothes", 0, 35, 170, 1.4),
    Category("women", "tops", ("cropped", "silk", "cotton"), "clothes", 0, 18, 180, 1.3),
    Category("women", "knitwear", ("wool", "cashmere"), "clothes", 1, 30, 340, 0.9),
    Category("women", "jeans", ("slim", "wide"), "clothes", 2, 32, 270, 0.9),
    Category("women", "coats", ("long", "short", "rain"), "clothes", 1, 70, 315, 0.7),
    Category("women", "shoes", ("flat", "heeled", "sports"), "shoes", 3, 40, 120, 1.0),
    Category("women", "bags", ("small", "large"), "one size", 3, 55, 100, 0.7),
    Category("men", "shirts", ("plain", "checked"), "clothes", 0, 22, 150, 0.8),
    Category("men", "knitwear", ("wool", "zipped"), "clothes", 1, 30, 345, 0.6),
    Category("men", "jeans", ("slim", "straight"), "clothes", 2, 34, 260, 0.6),
    Category("men", "coats", ("long", "short"), "clothes", 1, 75, 320, 0.5),
    Category("men", "shoes", ("leather", "sports"), "shoes", 3, 50, 110, 0.7),
    Category("kids", "tops", ("printed", "plain"), "kids", 0, 9, 130, 0.5),
    Category("kids", "coats", ("snow", "rain"), "kids", 1, 22, 300, 0.3),
    Category("kids", "trousers", ("soft", "denim"), "kids", 2, 12, 240, 0.4),
    Category("outdoor", "shells", ("light", "storm"), "clothes", 1, 90, 60, 1.2),
    Category("outdoor", "boots", ("trail", "alpine"), "shoes", 3, 80, 60, 0.8),
)
"""Ordered by department; the outdoor categories appear only with ``new_category_wave``."""

N_BRANDS = 60
N_NEW_BRANDS = 10
CRAZED_BRAND = 30
_FIRST = (
    "Al",
    "Bre",
    "Cor",
    "Dun",
    "El",
    "Fal",
    "Gri",
    "Hal",
    "Il",
    "Jor",
    "Kel",
    "Lum",
    "Mar",
    "Nor",
)
_LAST = ("va", "dale", "sen", "mont", "wick")
BRANDS = tuple(first + last for last in _LAST for first in _FIRST)[: N_BRANDS + N_NEW_BRANDS]

NEW_CATEGORY_SHARE = 0.5
CRAZE_UTILITY = 2.5
CRAZE_SUPPLY = 3.0
FLOOD = 1.5
INFLATION = 2.0
SLUMP = 0.2
SEASON_JUMP_DAYS = 60


class Scenario:
    """The ground truth of a simulated market, and how its changes alter it on a day.

    Args:
        settings: The simulation's settings.
    """

    def __init__(self, settings: SimulationSettings) -> None:
        self.settings = settings
        rng = self.stream("world")  # part of the seed: another name would draw another market
        n_categories = len(CATEGORIES)
        self.department = np.array([DEPARTMENTS.index(c.department) for c in CATEGORIES])
        self.system = np.array([SYSTEMS.index(c.system) for c in CATEGORIES])
        self.group = np.array([c.group for c in CATEGORIES])
        self.is_new = self.department == NEW_DEPARTMENT
        self.log_price = np.log([c.price for c in CATEGORIES]).astype(np.float32)
        self.kinds = np.array([len(c.kinds) for c in CATEGORIES])
        self.kind_offset = np.concatenate([[0], np.cumsum(self.kinds)[:-1]])
        self.kind_names = [f"{c.department} {k} {c.word}" for c in CATEGORIES for k in c.kinds]

        self.brand_style = _base_style(rng, N_BRANDS + N_NEW_BRANDS)
        self.brand_log_price = rng.normal(0, 0.45, N_BRANDS + N_NEW_BRANDS).astype(np.float32)
        self.brand_share = 1.0 / np.arange(2, N_BRANDS + N_NEW_BRANDS + 2) ** 0.7
        self.brand_department = rng.integers(0, NEW_DEPARTMENT, len(BRANDS))
        self.kind_style = _base_style(rng, len(self.kind_names))
        self.colour_style = _base_style(rng, len(COLOURS))
        self.fashion = np.stack([_unit(rng.normal(size=(n_categories, N_STYLE))) for _ in range(2)])
        self.taste_rotation_signs = rng.choice([-1.0, 1.0], size=(4, N_STYLE // 2))
        self.taste_clusters = rng.normal(size=(6, N_STYLE)).astype(np.float32)
        new_direction = np.zeros(N_STYLE, dtype=np.float32)
        new_direction[-2:] = (2.2, -2.2)
        self.new_direction = new_direction
        self.encoder = rng.normal(0, 1 / np.sqrt(N_STYLE), (N_STYLE, settings.vector_size))
        self.encoder_rotation = np.linalg.qr(rng.normal(size=(settings.vector_size,) * 2))[0]
        weekends = self.stream("weekends").normal(size=(2, n_categories))
        self.weekend_demand, self.weekend_supply = settings.weekend_mix * weekends

    def stream(self, name: str, day: int = 0) -> np.random.Generator:
        """A random generator for one purpose and day; draws of one do not affect another."""
        # As an array, which is read four times as fast as a list; a seed may be of any size.
        words = [self.settings.seed, *name.encode(), 0, day + 1_000_000]
        return np.random.default_rng(np.array(words, np.uint32) if max(words) < 2**32 else words)

    def change(self, name: str, day: int) -> MarketChange | None:
        """The change of that name in effect on a day; the latest if there are several."""
        started = [c for c in self.settings.changes if c.name == name and c.day <= day]
        return max(started, key=lambda c: c.day) if started else None

    def strength(self, name: str, day: int) -> float:
        """The strength of a change on a day; 0 if it is not in effect."""
        change = self.change(name, day)
        return change.strength if change else 0.0

    def season(self, day: int, lead: int = 0) -> Floats:
        """[C] log demand of each category_2, ``lead`` days later."""
        peaks = np.array([c.peak for c in CATEGORIES])
        ahead = lead + SEASON_JUMP_DAYS * self.strength("season_jump", day)
        phase = 2 * np.pi * (_day_of_year(self.settings, day) + ahead - peaks) / 365.25
        return (0.7 * self.settings.season_strength * np.cos(phase)).astype(np.float32)

    def supply(self, day: int) -> NDArray[np.float64]:
        """[C] share of new listings of each category_2."""
        log_supply = self.season(day, lead=10) + self.weekend(day) * self.weekend_supply
        share = np.array([c.share for c in CATEGORIES]) * np.exp(log_supply)
        return self._with_wave(share, day)

    def demand(self, day: int, preference: Floats) -> NDArray[np.float64]:
        """[V, C] chance that a visit is for each category_2, given ``preference`` [V, C]."""
        weekend = self.weekend(day) * self.weekend_demand
        share = np.exp(preference.astype(np.float64) + self.season(day) + weekend)
        return self._with_wave(share, day)

    def weekend(self, day: int) -> float:
        """How much a day is a weekend, 0 to 1."""
        return calendar.weekend(self.settings, day)

    def conversion(self, day: int) -> float:
        """Factor on every chance of a purchase on a day."""
        slump = SLUMP * self.strength("market_slump", day)
        return calendar.conversion(self.settings, day) * (1.0 - slump)

    def _with_wave(self, share: NDArray[np.float64], day: int) -> NDArray[np.float64]:
        wave = NEW_CATEGORY_SHARE * self.strength("new_category_wave", day)
        old = np.where(self.is_new, 0.0, share)
        new = np.where(self.is_new, share, 0.0)
        old = old / old.sum(axis=-1, keepdims=True)
        new = new / new.sum(axis=-1, keepdims=True)
        return (1 - wave) * old + wave * new

    def brand_shares(self, day: int) -> NDArray[np.float64]:
        """[departments, brands] share of new listings of each brand."""
        share = np.tile(self.brand_share, (len(DEPARTMENTS), 1))
        share *= np.where(self.brand_department == np.arange(4)[:, None], 3.0, 1.0)
        share[:, CRAZED_BRAND] *= 1 + (CRAZE_SUPPLY - 1) * self.strength("brand_craze", day)
        share[:NEW_DEPARTMENT, N_BRANDS:] = 0
        share[NEW_DEPARTMENT, :N_BRANDS] *= 0.01
        return share / share.sum(axis=1, keepdims=True)

    def brand_boost(self, day: int) -> Floats:
        """[brands] utility of each brand that is the same for all shoppers."""
        boost = np.zeros(len(BRANDS), dtype=np.float32)
        boost[CRAZED_BRAND] = CRAZE_UTILITY * self.strength("brand_craze", day)
        return boost

    def fashion_on(self, day: int) -> Floats:
        """[C, S] the style in fashion in each category_2, of unit length."""
        strength = self.strength("taste_shift", day)
        before, after = self.fashion
        return _unit((1 - strength) * before + strength * after)

    def taste_rotation_on(self, day: int) -> Floats:
        """[groups, S, S] rotation of a shopper's taste in each group of categories."""
        angles = self.strength("taste_shift", day) * np.pi / 4 * self.taste_rotation_signs
        rotation = np.zeros((len(angles), N_STYLE, N_STYLE), dtype=np.float32)
        for plane in range(N_STYLE // 2):
            i, j = 2 * plane, 2 * plane + 1
            rotation[:, i, i] = rotation[:, j, j] = np.cos(angles[:, plane])
            rotation[:, i, j] = -np.sin(angles[:, plane])
            rotation[:, j, i] = np.sin(angles[:, plane])
        return rotation

    def encode_images(self, style: Floats, noise: Floats, day: int) -> Floats:
        """[N, V] image vectors of ``style`` [N, S] by the encoder of a day; ``noise`` is [N, V]."""
        vectors = np.asarray(np.tanh(style @ self.encoder) + noise, dtype=np.float64)
        strength = self.strength("image_encoder_replaced", day)
        if strength:
            mixed = (1 - strength) * np.eye(
                len(self.encoder_rotation)
            ) + strength * self.encoder_rotation
            left, _, right = np.linalg.svd(mixed)
            vectors = vectors @ (left @ right)
        return np.asarray(vectors, dtype=np.float32)


def _day_of_year(settings: SimulationSettings, day: int) -> int:
    return (settings.start.timetuple().tm_yday + day - 1) % 365 + 1


def _base_style(rng: np.random.Generator, n: int) -> Floats:
    """[n, S] styles of the old categories, which hardly use the last two dimensions."""
    scale = np.where(np.arange(N_STYLE) < N_STYLE - 2, 1.0, 0.2)
    return (rng.normal(size=(n, N_STYLE)) * scale).astype(np.float32)


def _unit(vectors: NDArray[Any]) -> Floats:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), dtype=np.float32)
