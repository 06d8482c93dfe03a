"""Settings of a simulated marketplace, and of its changes."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Annotated, Any

from pydantic import Field, ValidationInfo, field_validator

from refit.errors import UsageError
from refit.settings import Settings
from simulation.changes import CHANGES, NULLABLE_COLUMNS


class MarketChange(Settings):
    """One named change of the simulated marketplace, in effect from a day on.

    Attributes:
        name: One of ``simulation.changes.CHANGES``.
        day: The first day on which it is in effect; 0 is the first simulated day.
        strength: 0 is no effect, 1 the one documented with the change; some may be stronger, up to
            their ``strongest``.
        column: Only for ``column_gone_null``: the item column that becomes null.
    """

    name: str
    day: int = Field(ge=0)
    strength: float = Field(default=1.0, gt=0.0)
    column: str = "brand"

    @field_validator("name")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in CHANGES:
            raise ValueError(f"unknown change; known changes: {', '.join(sorted(CHANGES))}")
        return name

    @field_validator("strength")
    @classmethod
    def _is_possible(cls, strength: float, info: ValidationInfo) -> float:
        note = CHANGES.get(info.data.get("name", ""))
        if note and strength > note.strongest:
            raise ValueError(f"strength is at most {note.strongest:g} for this change")
        return strength

    @field_validator("column")
    @classmethod
    def _can_be_null(cls, column: str) -> str:
        if column not in NULLABLE_COLUMNS:
            raise ValueError(
                f"this column cannot become null; choose from {', '.join(NULLABLE_COLUMNS)}"
            )
        return column


Rate = Annotated[float, Field(gt=0.0)]
WeekdayRates = tuple[Rate, Rate, Rate, Rate, Rate, Rate, Rate]


class SimulationSettings(Settings):
    """A simulated marketplace; the defaults are the ``demo`` preset.

    Attributes:
        seed: The same seed gives identical rows, another seed another marketplace.
        start: The first simulated day, UTC.
        days: Days of history; live days follow.
        n_shoppers: Number of shoppers at the start.
        newcomers_per_day: Mean number of shoppers who join on a day.
        listings_per_day: Mean number of new listings a day, over the year.
        visits_per_day: Mean number of visits a day; a visit has three to four events.
        requests_per_day: How many visits of a live day request recommendations; the others browse
            the organic ranking.
        list_length: Number of slots of an organic list.
        lifetime_days: Mean time until an unsold listing is withdrawn.
        season_strength: 0 is a market without seasons; 1 multiplies the demand for a category by
            two in its season and halves it half a year later.
        weekday_visits, weekday_listings: Relative rates of the weekdays, Monday first.
        weekend_mix: How different the categories are that people look for and list on weekends:
            standard deviation of the logarithm of their demand, and of their supply.
        weekend_conversion: Factor on every chance of a purchase on weekends.
        visits_growth, listings_growth: Growth in 30 days, such as 0.05.
        purchase_delay_hours: Median time from the decision to buy to the purchase; the listing is
            on sale until then, but nobody else can buy it. The times are log-normal: one in ten
            takes three times as long. 0 is at once.
        vector_size: Length of the simulated image vector.
        vector_noise: Standard deviation of the vector's noise; that of its signal is about 0.6.
        changes: The changes, each with its day.
    """

    seed: int = Field(default=7, ge=0)
    start: date = date(2024, 3, 1)
    days: int = Field(default=60, ge=1)
    n_shoppers: int = Field(default=2500, ge=50)
    newcomers_per_day: float = Field(default=12.0, ge=0.0)
    listings_per_day: float = Field(default=300.0, ge=10.0)
    visits_per_day: float = Field(default=1600.0, ge=10.0)
    requests_per_day: int = Field(default=300, ge=0)
    list_length: int = Field(default=16, ge=1)
    lifetime_days: float = Field(default=15.0, ge=1.0)
    season_strength: float = Field(default=1.0, ge=0.0, le=2.0)
    weekday_visits: WeekdayRates = (1.0, 1.0, 1.0, 1.0, 1.0, 1.2, 1.2)
    weekday_listings: WeekdayRates = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    weekend_mix: float = Field(default=0.0, ge=0.0, le=2.0)
    weekend_conversion: float = Field(default=1.0, gt=0.0, le=2.0)
    visits_growth: float = Field(default=0.0, gt=-1.0, le=1.0)
    listings_growth: float = Field(default=0.0, gt=-1.0, le=1.0)
    purchase_delay_hours: float = Field(default=0.0, ge=0.0)
    vector_size: int = Field(default=32, ge=8)
    vector_noise: float = Field(default=0.3, ge=0.0)
    changes: tuple[MarketChange, ...] = ()

    @property
    def starts_at(self) -> datetime:
        """Midnight, UTC, of the first day."""
        return datetime(self.start.year, self.start.month, self.start.day, tzinfo=UTC)


PRESETS: dict[str, dict[str, Any]] = {
    "demo": {},
    "large": {
        "days": 90,
        "n_shoppers": 20_000,
        "newcomers_per_day": 80.0,
        "listings_per_day": 800.0,
        "visits_per_day": 2800.0,
    },
    "living": {
        "weekday_visits": (0.95, 0.9, 0.92, 0.95, 1.0, 1.2, 1.35),
        "weekday_listings": (1.0, 0.9, 0.9, 0.95, 0.95, 1.15, 1.35),
        "weekend_mix": 0.4,
        "weekend_conversion": 0.9,
        "visits_growth": 0.03,
        "listings_growth": 0.03,
        "purchase_delay_hours": 2.0,
    },
}
"""Named markets: ``demo`` (a few thousand events a day), ``large`` (1M events), ``living`` (the
demo with weekdays that differ, growth, and purchases that are reported hours later)."""


def read_settings(values: Mapping[str, Any]) -> SimulationSettings:
    """Read settings from plain values; ``preset`` names the defaults, see ``PRESETS``.

    Raises:
        UsageError: A preset, name or value is unknown or invalid; the message lists valid ones.
    """
    own = dict(values)
    preset = own.pop("preset", "demo")
    if not isinstance(preset, str) or preset not in PRESETS:
        raise UsageError(f"unknown preset {preset!r}; known presets: {', '.join(PRESETS)}")
    return SimulationSettings.parse({**PRESETS[preset], **own})
