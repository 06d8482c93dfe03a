"""An installation with alerts to review: a store, evidence, two bundles' worth of champions."""

from datetime import timedelta

import numpy as np

from monitoring.pictures import draw_shares
from monitoring.review.charts import draw_on_axes
from monitoring.review.evidence import (
    AlertEvidence,
    MetricEvidence,
    PanelQuery,
    ValueListings,
    ValueShare,
)
from monitoring.review.maps import draw_map
from monitoring.store import SqlStore
from refit.alert import Action, AlertStatus, DriftDecision, Severity
from refit.drift import DriftResult, DriftState, Window
from refit.files import write_json
from refit.incident import Cause, Incident
from refit.quarantine import Quarantine
from tests.monitoring.alerts import BRAND, DRIFT, NOW, OK, QUERY, UNMEASURED, alert, series

MARKUP = '<img src=x onerror="alert(1)"><script>alert(2)</script>'
"""A title as a seller may write it."""
BUNDLE = "20240301T101112500Z-0a1b2c3d"
STORY = Incident(
    cause=Cause.NEW_SUPPLY,
    summary="A category never seen, 'outdoor', is 48% of new listings",
    began=NOW - timedelta(days=2),
    feed="items.category_1",
    first_moved="listing-embedding/mean_shift",
    explained=("listing-embedding/mean_shift", "mix:category_1/value_shares"),
    unexplained=("input:items.brand/null_share",),
    evidence=(
        "Of 1,204 listings of the window, 578 have the category 'outdoor', which the reference "
        "does not have.",
        "Without them no result of listing-embedding drifts.",
    ),
    ruled_out=(
        "upstream fault: 60 known listings were encoded again, and all are as before",
        "season: the same weeks of last year had the usual mix",
    ),
)


def quality(level, end, state=DriftState.OK, bundle="t1"):
    return DriftResult(
        subject="live:click-rate",
        statistic="drop",
        value=0.198 - level,
        threshold=0.02,
        n_reference=9000,
        n_current=4000,
        window=Window(start=end - timedelta(days=1), end=end),
        state=state,
        embedding_version=bundle,
        level=level,
        interval=(level - 0.012, level + 0.012),
    )


def tell_story(place, pages, title="Trekking jacket, size M"):
    """Fill a store with an alert that has everything, and some plain ones; returns the store."""
    store = SqlStore(place)
    results = series(QUERY, OK, OK, OK, DRIFT, DRIFT) + series(BRAND, OK, OK, OK, OK, UNMEASURED)
    levels = (0.198, 0.201, 0.196, 0.188, 0.151)
    results += [
        quality(level, NOW - timedelta(days=4 - i), DriftState.DRIFT if i == 4 else DriftState.OK)
        for i, level in enumerate(levels)
    ]
    store.add_results(results)
    decision = DriftDecision(
        action=Action.REFIT,
        reasons=(
            "query-embedding/mean_shift drifted in 2 of the last 3 windows",
            "a refit costs 12 machine minutes and waiting costs 40 purchases a day",
        ),
        at=NOW,
    )
    raised = alert(f"{BUNDLE}-20240310T0000").model_copy(
        update={
            "bundle_id": BUNDLE,
            "results": tuple(r for r in results if r.window.end == NOW and r.state is not OK),
            "decision": decision,
            "incident": STORY,
            "severity": Severity.PAGE,
        }
    )
    store.add_alert(raised)
    store.add_quarantine(
        Quarantine(
            quarantine_id=f"{raised.alert_id}-items",
            table="items",
            start=NOW - timedelta(days=2),
            reason="brand is missing in 1 of 4 rows",
            alert_id=raised.alert_id,
        )
    )
    for i in range(30):
        plain = alert(f"old-{i:02}", NOW - timedelta(days=10 + i)).model_copy(
            update={"status": AlertStatus.RESOLVED, "resolved_by": "ana", "note": "a season"}
        )
        store.add_alert(plain)
    write_evidence(pages, raised.alert_id, title)
    return store


def write_evidence(pages, alert_id, title):
    random = np.random.default_rng(0)
    centres = random.normal(size=(6, 16))
    there, here = (
        centres[random.integers(0, 6, n)] + 0.3 * random.normal(size=(n, 16)) for n in (900, 500)
    )
    new = random.normal(size=16) + 0.3 * random.normal(size=(60, 16))
    rows = [
        {"item_id": f"i{n}", "title": title, "price": f"{20 + n % 60}.00", "category_1": "outdoor"}
        for n in range(560)
    ]
    shares = ({"women": 0.6, "men": 0.4}, {"women": 0.31, "men": 0.21, "outdoor": 0.48})
    evidence = AlertEvidence(
        window=Window(start=NOW - timedelta(days=1), end=NOW),
        queries=(
            {
                "request": "r1",
                "user": "u7",
                "context": "{'size': 'M'}",
                "recommended": "outdoor 9×",
            },
        ),
        listings=tuple(rows[:5]),
        shares=(
            ValueShare(column="category_1 recommended", value="outdoor", before=0.0, now=0.48),
            ValueShare(column="category_1 recommended", value="women", before=0.6, now=0.31),
        ),
        metrics={
            "query-embedding/mean_shift": MetricEvidence(
                unit="squared distance",
                meaning="People ask for other things than before.",
                action="Refit when live quality falls.",
                picture=draw_on_axes(
                    lambda axes: draw_shares(axes, *shares), "shares", "outdoor is new", (3.5, 1.8)
                ),
                caption="Shares of categories before and now.",
            )
        },
        maps=(draw_map("listings", there, np.concatenate([here, new]), rows),),
        panel=(
            PanelQuery(
                query="a woman of size M, in March", before=("i1", "i2"), after=("i2", "i9")
            ),
        ),
        examples=(
            ValueListings(column="category_1", value="outdoor", item_ids=("i3", "i4", "gone")),
        ),
        items={
            row["item_id"]: {**row, "url": f"{scheme}://shop.example/{row['item_id']}"}
            for row, scheme in zip(rows[:10], ("https", "javascript") * 5, strict=True)
        },
    )
    write_json(pages / f"{alert_id}.json", evidence.model_dump(mode="json"))
