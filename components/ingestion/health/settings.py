"""Thresholds of the health page."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import PrivateAttr, model_validator

from refit.settings import Settings


class HealthLimits(Settings):
    """From which value on a line of the health page is to be looked at, or stops the run.

    Attributes:
        look: From this value on, the line is marked ``look``. None: never.
        stop: From this value on, the run stops with exit code 4. None: never.
    """

    look: float | None = None
    stop: float | None = None
    _setting: str = PrivateAttr(default="")

    @property
    def setting(self) -> str:
        """The name of the pair within the settings; empty for a pair that is none of them."""
        return self._setting


class HealthSettings(Settings):
    """The thresholds of each check of the health page; shares are 0 to 1.

    Of a pair, a value that is not given keeps its default. The defaults stop a run only where the
    data is certainly wrong.

    Attributes:
        days_without_events: Share of the days from the first to the last event.
        busiest_day: Events of the busiest day, as a multiple of the median day.
        days_since_last_event: Days from the last event to the end of the window.
        fall_in_test: How far the events per day fall from train to test, as a share.
        precision_in_test: Half the width of the 95% interval of a hit rate of one half, by the
            number of users in test: 0.98 divided by its square root.
        clock_spike: Share of the events at the most common time of day.
        full_hours: Share of the other events whose time is a full hour.
        no_purchase: 1 where no event is a purchase, else 0.
        unknown_items: Share of events whose item the items table does not have. They are rejected,
            and ``max_rejected.events`` stops the run.
        unknown_users: Share of events whose user the users table does not have.
        users_without_features: Share of events whose user has no value in any user column.
        misspelt_users: Share of the users with events that the users table has in another spelling
            only, such as ``007`` for ``7``.
        null_like_ids: Share of rows whose id is spelled like a null, such as ``NULL`` or ``nan``.
        ids_in_several_spellings: Share of the users, items or sellers that differ from another one
            in case, spaces, Unicode form, leading zeros or a trailing ``.0`` only.
        rounded_ids: Share of rows whose id is a number in scientific notation, as spreadsheets
            write long ones: different ids become the same.
        duplicates: Share of a table's rows that are duplicates.
        rejected: Share of a table's rows that are rejected; ``max_rejected`` stops the run.
        largest_user: Share of the events of one user: of all events, in train and in test.
        largest_seller: Share of the events on the items of one seller.
        bought_twice: Share of the items ever bought that are bought more than once.
        single_visits: Share of sessions with one event.
        long_visits: Share of sessions that are longer than a day.
        shared_visits: Share of sessions with events of several users.
        before_listing: Share of events before their item is listed.
        after_delisting: Share of events after their item is delisted.
        missing_column: Share of rows without a value in a column whose absence changes what is
            trained or measured; 1 if the column is absent.
        missing_table: 1 where the items or the users table is not given, else 0.
        items_without_text: Share of items with neither title nor description.
        items_without_picture: Share of items without ``image_embedding``.
        free_items: Share of the prices that are zero.
        currencies: Number of currencies among the items.
        single_versions: Share of items with one version, where items come in versions.
        late_versions: Share of items that were listed, or had an event, before their first version.
        items_without_events: Share of items without an event.
        users_without_events: Share of users without an event.
        constant_columns: Number of columns with one value in all rows.
    """

    days_without_events: HealthLimits = HealthLimits(look=0.05)
    busiest_day: HealthLimits = HealthLimits(look=20.0)
    days_since_last_event: HealthLimits = HealthLimits(look=3.0)
    fall_in_test: HealthLimits = HealthLimits(look=0.5)
    precision_in_test: HealthLimits = HealthLimits(look=0.1)
    clock_spike: HealthLimits = HealthLimits(look=0.05)
    full_hours: HealthLimits = HealthLimits(look=0.5)
    no_purchase: HealthLimits = HealthLimits(look=1.0)
    unknown_items: HealthLimits = HealthLimits(look=0.001)
    unknown_users: HealthLimits = HealthLimits(look=0.05, stop=0.95)
    misspelt_users: HealthLimits = HealthLimits(look=0.000001, stop=0.01)
    users_without_features: HealthLimits = HealthLimits(look=0.5)
    null_like_ids: HealthLimits = HealthLimits(look=0.000001, stop=0.25)
    ids_in_several_spellings: HealthLimits = HealthLimits(look=0.000001)
    rounded_ids: HealthLimits = HealthLimits(look=0.000001, stop=0.25)
    duplicates: HealthLimits = HealthLimits(look=0.05)
    rejected: HealthLimits = HealthLimits(look=0.001)
    largest_user: HealthLimits = HealthLimits(look=0.1, stop=0.9)
    largest_seller: HealthLimits = HealthLimits(look=0.3)
    bought_twice: HealthLimits = HealthLimits()
    single_visits: HealthLimits = HealthLimits(look=1.0)
    long_visits: HealthLimits = HealthLimits(look=0.05)
    shared_visits: HealthLimits = HealthLimits(look=0.01)
    before_listing: HealthLimits = HealthLimits(look=0.01, stop=1.0)
    after_delisting: HealthLimits = HealthLimits(look=0.05, stop=1.0)
    missing_column: HealthLimits = HealthLimits(look=0.5)
    missing_table: HealthLimits = HealthLimits(look=1.0)
    items_without_text: HealthLimits = HealthLimits(look=0.5)
    items_without_picture: HealthLimits = HealthLimits()
    free_items: HealthLimits = HealthLimits(look=0.1)
    currencies: HealthLimits = HealthLimits(look=2.0)
    single_versions: HealthLimits = HealthLimits(look=1.0)
    late_versions: HealthLimits = HealthLimits(look=0.01)
    items_without_events: HealthLimits = HealthLimits(look=0.95)
    users_without_events: HealthLimits = HealthLimits()
    constant_columns: HealthLimits = HealthLimits(look=1.0)

    @model_validator(mode="before")
    @classmethod
    def _keep_the_other_threshold(cls, values: Any) -> Any:
        """Complete a pair of which one value is given by the default of the other."""
        if not isinstance(values, Mapping):
            return values
        return {
            name: cls.model_fields[name].default.model_dump() | dict(given)
            if name in cls.model_fields and isinstance(given, Mapping)
            else given
            for name, given in values.items()
        }

    @model_validator(mode="after")
    def _name_the_pairs(self) -> Self:
        """Give each pair its name, so that a stop can say which setting it is."""
        for name in type(self).model_fields:
            getattr(self, name)._setting = name
        return self
