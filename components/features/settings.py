"""Settings of the features step."""

from pydantic import Field, field_validator

from refit.eligibility import RULES, MarketSettings
from refit.features import FeatureSpec
from refit.settings import Settings
from refit.tables import MemoryLimit, ThreadCount


class FeatureSettings(Settings):
    """Settings of the point-in-time tables.

    Attributes:
        spec: Which columns are inputs of which tower, and how history and popularity are computed.
        market: What kind of market it is: whether bought items may be shown again, and which
            eligibility rules of your own apply. The evaluation and the server use the same.
        frozen_at_cut: Validation and test use one snapshot of the items, taken when that window
            begins, as a model does that is not re-indexed. Otherwise snapshots continue through
            these windows.
        evaluate_recommended: Also evaluate on events that follow a recommendation (those with a
            request_id). Users choose from what they are shown, so that such events favour the model
            that made the recommendation, usually the champion.
        request_days: Visits in this many days before the end are kept as requests, the reference
            for drift; several days, so that the variation between days can be measured.
        max_requests: More requests than this are thinned out evenly over time.
        memory_limit: How much DuckDB may hold in memory; the rest is spilled to disk.
        threads: Threads of DuckDB; 0 is one for each core.
    """

    spec: FeatureSpec = FeatureSpec()
    market: MarketSettings = MarketSettings()
    frozen_at_cut: bool = False
    evaluate_recommended: bool = False
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
