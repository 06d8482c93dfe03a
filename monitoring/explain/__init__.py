"""Explain: the results of an alert as one story, with its cause and what was ruled out.

``explain`` is a pure function of results, their evidence and an ``ExplainContext``, which
``collect_context`` reads from the data. A cause is one module of ``causes``; ``signs`` are what is
seen; ``advise_action`` says what follows.
"""

from monitoring.explain.actions import CauseAdvice, advise_action
from monitoring.explain.collect import collect_context
from monitoring.explain.context import ExplainContext
from monitoring.explain.story import explain

__all__ = ["CauseAdvice", "ExplainContext", "advise_action", "collect_context", "explain"]
