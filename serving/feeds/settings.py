"""Settings of the feeds, and of what is kept of them."""

from typing import Literal

from pydantic import Field

from refit.settings import Settings

LATE_HOURS = 24.0
ENDED_LISTINGS = 100_000


class LiveFeedSettings(Settings):
    """Where the feeds are, and how they are followed.

    Attributes:
        stock: Address of the stock feed: a folder of JSON lines files, or
            ``kafka://host:9092,host2:9092/topic``. Empty: the stock is that of the bundle.
        activity: Address of the activity feed, likewise. Empty: histories end with the bundle.
        encoder_version: The ``encoder_version`` of the stock feed's vectors, as ``refit encode``
            writes it; a bundle that reads other vectors is refused. Empty: any bundle is served,
            and lines whose vectors it cannot read become dead letters.
        kafka_properties: File of further settings of the Kafka client, ``name=value`` a line, such
            as ``security.protocol`` and ``sasl.password``; mount it from a Secret. Empty for none.
        poll_seconds: Interval at which the feeds are read.
        listing_seconds: Shortest interval at which new and changed listings are embedded; sales
            never wait for it.
        ahead_seconds: A line whose time is further in the future is set aside. With
            ``allow_replay`` there is no now, and no such check.
        late_hours: How long before the bundle's time the feeds count: a sale of which the data
            learned too late takes the listing off all the same.
        ended_listings: So many listings that are newer than the bundle and have ended are
            remembered, those that ended last; each takes 1 to 2 kB. Lines from before the end of
            one that was forgotten are set aside, unless their listing is known.
        unready_seconds: A feed that answers but was not read to its end for so long makes the
            server unready; so does one that was never read to its end. One that has gone away
            afterwards does not, since no other server would know more.
    """

    stock: str = ""
    activity: str = ""
    encoder_version: str = ""
    kafka_properties: str = ""
    poll_seconds: float = Field(0.1, gt=0)
    listing_seconds: float = Field(0.5, gt=0)
    ahead_seconds: float = Field(300.0, ge=0)
    late_hours: float = Field(LATE_HOURS, ge=0)
    ended_listings: int = Field(ENDED_LISTINGS, ge=1)
    unready_seconds: float = Field(60.0, gt=0)


class PeopleSettings(Settings):
    """What is kept of people's activity since the bundle's histories ended.

    Attributes:
        people: So many people, of whom those who did something latest are kept.
        events: So many of the latest events of each.
        running_visit: Whether the query tower reads events of the running visit. ``as_trained``:
            if the features were built with ``spec.history_within_visit``. ``always``: also where
            the towers were trained on histories that end with the visit before.
    """

    people: int = Field(100_000, ge=1)
    events: int = Field(100, ge=1)
    running_visit: Literal["as_trained", "always"] = "as_trained"
