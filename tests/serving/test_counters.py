from serving.counters import Counters


def test_counters_are_summed_and_drained_once():
    counters = Counters()
    counters.add("fallbacks", reason="slow")
    counters.add("fallbacks", reason="slow")
    counters.add("fallbacks", reason="gone")
    counters.time("latency", 3.5)
    counters.set("bundle", 1, bundle_id="b")
    drained = counters.drain()
    assert {
        "type": "COUNTER",
        "key": "fallbacks",
        "value": 2,
        "tags": {"reason": "slow"},
    } in drained
    assert {"type": "TIMER", "key": "latency", "value": 3.5, "tags": {}} in drained
    assert {"type": "GAUGE", "key": "bundle", "value": 1, "tags": {"bundle_id": "b"}} in drained
    assert counters.drain() == []
    assert counters.total("fallbacks") == 3
    assert counters.total("fallbacks", reason="slow") == 2
