"""Settings of the features step."""

from pydantic import Field, field_validator

from refit.eligibility import RULES, MarketSettings
from refit.features import FeatureSpec
from refit.settings import Settings
from refit.tables import MemoryLimit, ThreadCount


class FeatureSettings(Settings):
    """How the point-in-time tables are made.

    Attributes:
        spec: Which columns feed which tower, and how history and popularity are counted.
        market: What kind of market it is: whether bought items may come back, and which
            eligibility rules of your own apply. Evaluation and server follow the same.
        frozen_at_cut: Validation and test see items as they stood when that window began, as a
            model does that is not re-indexed; otherwise snapshots go on through these windows.
        judge_recommended: Judge also on events that follow an answer (those with a request_id).
            People choose from what they are shown, so such events favour whichever model showed
            it: a challenger would be held against a champion's own shop window.
        request_days: Visits of so many days before the end are kept as requests, which drift is
            measured against; several days, so that it shows how much days differ by themselves.
        max_requests: More requests than this are thinned out evenly over time.
        memory_limit: What the table engine may hold before it spills to disk.
        threads: Threads of the table engine; None is all cores.
    """

    spec: FeatureSpec = FeatureSpec()
    market: MarketSettings = MarketSettings()
    frozen_at_cut: bool = False
    judge_recommended: bool = False
    request_days: float = Field(default=14.0, gt=0)
    max_requests: int = Field(default=20_000, ge=1)
    memory_limit: MemoryLimit = "2GB"
    threads: ThreadCount = 0

    @field_validator("market")
    @classmethod
    def _check_rules(cls, market: MarketSettings) -> MarketSettings:
        for name in market.rules:
            if not RULES.is_known(name):
                raise ValueError(RULES.explain_unknown(name))
        return market
