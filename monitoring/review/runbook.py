"""What a person on call can do, by what drifted."""

from fnmatch import fnmatchcase

RUNBOOK: tuple[tuple[str, str, str], ...] = (
    (
        "input:*/null-share",
        "A column goes missing upstream.",
        "Ask the owner of the feed what was released that day. Do not refit: the model would "
        "learn that the column is empty. Once mended, rebuild the index so that listings made "
        "meanwhile get their vectors anew.",
    ),
    (
        "input:*/centroid-shift",
        "Vectors of every category moved at once: another encoder, or another version of it.",
        "Find out which encoder writes the column now. Roll it back, or encode the whole stock "
        "with the new one and train on that; never mix the two.",
    ),
    (
        "input:*/vector-norm",
        "Vectors changed their length: scaling or normalisation differs.",
        "Compare one listing's vector before and after; mend the encoder's output.",
    ),
    (
        "input:*/new-values",
        "Values turn up that the towers never saw.",
        "Look at the new values below. Renamed values are a fault upstream; a new category or "
        "brand is the market moving, which a refit learns.",
    ),
    (
        "input:*",
        "What is listed or done is not what it was.",
        "Look whether a season, a campaign or an import explains it. Watch live quality; refit "
        "when it falls.",
    ),
    (
        "query-embedding/*",
        "People ask for other things than the model was trained on.",
        "Look at the queries below. When they are real shoppers, refit; when one client or a "
        "crawler makes them, block it.",
    ),
    (
        "listing-embedding/*",
        "The stock is not what it was.",
        "Look at the listings below; check that the index was refreshed with the same towers.",
    ),
    (
        "scores/*",
        "The model is surer, or less sure, than it was.",
        "Falling scores mean queries far from the stock: refresh the index first, then refit.",
    ),
    (
        "mix:*/concentration",
        "Recommendations gather on fewer sellers, or spread over more.",
        "Check for a seller flooding the stock with listings; a marketplace lives of its sellers "
        "being seen.",
    ),
    (
        "mix:*",
        "Other things are recommended than before.",
        "Hold it against the stock: a mix that follows the stock is right, one that does not is "
        "a stale model. Refit when live quality falls too.",
    ),
    (
        "live:fallback-share/*",
        "The query tower does not answer in time.",
        "Look at the tower server: is it up, is it overloaded? A refit does not help.",
    ),
    (
        "live:*",
        "People do less with the answers they get.",
        "Check first that outcomes still arrive. If so, refit; if the newest bundle is the cause, "
        "roll back.",
    ),
)


def advise(name: str) -> tuple[str, str]:
    """What drift of ``subject/statistic`` means, and what to do about it."""
    return next(
        ((meaning, action) for pattern, meaning, action in RUNBOOK if fnmatchcase(name, pattern)),
        ("Something moved that has no page in the runbook.", "Look at its picture and examples."),
    )
