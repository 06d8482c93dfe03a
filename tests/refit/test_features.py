import numpy as np

from refit.features import FeatureSpec, query_inputs


def test_numbers_of_one_request_are_those_of_a_table():
    """Also where float32 cannot hold them."""
    values = [None, 35, 0.1, -1e39, 1e39, 2.0**128 - 2.0**103, 2.0**128 - 2.0**104]
    spec, none = FeatureSpec(context_numeric=("age",)), np.zeros((len(values), 0))
    one, table = (
        query_inputs(spec, {"age": given}, {}, none, [[]] * len(values), none)["context_age"]
        for given in (values, tuple(values))
    )
    assert one.dtype == table.dtype == np.float32
    np.testing.assert_array_equal(one, table)
    assert one[4:].tolist() == [np.inf, np.inf, float(np.finfo(np.float32).max)]
