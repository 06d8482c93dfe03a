"""What a simulated day is by itself: its weekday, and how much the market has grown."""

import numpy as np

from simulation.settings import SimulationSettings

DAYS_PER_MONTH = 30.0
WEEKEND = (0.0, 0.0, 0.0, 0.0, 0.3, 1.0, 1.0)
"""How much each weekday is a weekend, Monday first."""


def weekday(settings: SimulationSettings, day: int) -> int:
    """0 for Monday to 6 for Sunday."""
    return (settings.start.weekday() + day) % 7


def weekend(settings: SimulationSettings, day: int) -> float:
    """How much a day is a weekend, 0 to 1."""
    return WEEKEND[weekday(settings, day)]


def visits(settings: SimulationSettings, day: int) -> float:
    """Mean number of visits on a day."""
    rates = settings.weekday_visits
    # Rounded, so that the rows of one seed stay what they have always been.
    rate = rates[weekday(settings, day)] / round(float(np.mean(rates)), 3)
    return settings.visits_per_day * rate * _grown(settings.visits_growth, day)


def listings(settings: SimulationSettings, day: int) -> float:
    """Mean number of new listings on a day, without those of a flood of sellers."""
    rates = settings.weekday_listings
    rate = rates[weekday(settings, day)] / float(np.mean(rates))
    return settings.listings_per_day * rate * _grown(settings.listings_growth, day)


def conversion(settings: SimulationSettings, day: int) -> float:
    """Factor on every chance of a purchase on a day."""
    is_weekend = weekday(settings, day) >= 5
    return settings.weekend_conversion if is_weekend else 1.0


def _grown(monthly: float, day: int) -> float:
    return float((1.0 + monthly) ** (max(day, 0) / DAYS_PER_MONTH))
