import math

import pytest

from components.deployment.counts import Counts, read_counts, sum_counts

LABELS = 'deployment_name="refit",method="predict",worker_id="7"'
OTHER = 'deployment_name="refit",method="health",worker_id="9"'
METRICS = f"""\
# HELP refit_requests_total
# TYPE refit_requests_total counter
refit_requests_total{{{LABELS}}} 30.0
# HELP refit_errors_total
# TYPE refit_errors_total counter
refit_errors_total{{{LABELS}}} 0.0
# HELP refit_fallbacks_total
# TYPE refit_fallbacks_total counter
refit_fallbacks_total{{reason="tower_slow",{LABELS}}} 2.0
# HELP refit_fallbacks_total
# TYPE refit_fallbacks_total counter
refit_fallbacks_total{{reason="tower_unreachable",{LABELS}}} 1.0
# HELP refit_latency
# TYPE refit_latency histogram
refit_latency_bucket{{le="0.1",{LABELS}}} 20.0
refit_latency_bucket{{le="0.25",{LABELS}}} 27.0
refit_latency_bucket{{le="+Inf",{LABELS}}} 30.0
refit_latency_count{{{LABELS}}} 30.0
refit_latency_sum{{{LABELS}}} 2.0
# HELP refit_requests_total
# TYPE refit_requests_total counter
refit_requests_total{{{OTHER}}} 5.0
# HELP refit_latency
# TYPE refit_latency histogram
refit_latency_bucket{{le="0.1",{OTHER}}} 1.0
refit_latency_bucket{{le="0.25",{OTHER}}} 1.0
refit_latency_bucket{{le="+Inf",{OTHER}}} 5.0
"""


def test_counts_are_summed_over_worker_processes_and_reasons():
    assert read_counts(METRICS, slow_ms=200) == Counts(
        requests=35, errors=0, fallbacks=3, timed=35, slow=7
    )


@pytest.mark.parametrize(("slow_ms", "slow"), [(50, 14), (100, 14), (101, 7), (251, None)])
def test_the_limit_of_slow_answers_is_rounded_up_to_a_bucket_bound(slow_ms, slow):
    assert read_counts(METRICS, slow_ms).slow == slow


@pytest.mark.parametrize("text", [None, "", "no metrics {", "<html>502</html>"])
def test_counts_of_invalid_metrics_are_unknown(text):
    assert read_counts(text, 200) == Counts()


def test_nan_is_unknown():
    invalid = METRICS.replace("} 30.0", "} NaN")
    assert read_counts(invalid, 200).requests is None


def test_a_missing_counter_is_unknown_not_zero():
    without = "\n".join(line for line in METRICS.splitlines() if "refit_errors" not in line)
    counts = read_counts(without, 200)
    assert counts.errors is None
    assert counts.error_rate.problem


def test_since_is_the_difference_but_all_counts_after_a_restart():
    before = Counts(requests=100, errors=1, fallbacks=0, timed=100, slow=10)
    now = Counts(requests=130, errors=1, fallbacks=5, timed=130, slow=11)
    assert now.since(before) == Counts(requests=30, errors=0, fallbacks=5, timed=30, slow=1)
    restarted = Counts(requests=4, errors=2, fallbacks=0, timed=4, slow=0)
    assert restarted.since(before) == restarted
    assert now.since(Counts()) == now
    assert Counts().since(before) == Counts()


def test_a_sum_with_an_unknown_count_is_unknown():
    known = Counts(requests=1, errors=0, fallbacks=0, timed=1, slow=0)
    assert sum_counts([known, known]).requests == 2
    assert sum_counts([known, Counts()]) == Counts()
    assert sum_counts([]) == Counts()


def test_the_error_rate_is_relative_to_all_requests():
    rate = Counts(requests=90, errors=10).error_rate
    assert (rate.bad, rate.total) == (10, 100)
    assert not math.isnan(rate.total)
