"""Versions: several rows for one item, each valid from its ``valid_from`` on."""

from collections.abc import Sequence

import ibis
import ibis.expr.types as ir

from refit.contract import VALID_FROM

_LATER = "_later"


def keep_latest(table: ir.Table, key: str) -> ir.Table:
    """The latest row of each key, without ``valid_from``; a row without a time is the oldest.

    Args:
        table: Rows with ``valid_from``.
        key: The column of the ids.
    """
    by_time = [ibis.desc(VALID_FROM, nulls_first=False)]
    later = ibis.row_number().over(ibis.window(group_by=key, order_by=by_time))
    ranked = table.mutate(**{_LATER: later})
    return ranked.filter(ranked[_LATER] == 0).drop(_LATER, VALID_FROM)


def mark_changes(table: ir.Table, key: str, columns: Sequence[str]) -> ir.Table:
    """For each row and column, whether its value is another than in the version before it.

    Args:
        table: Rows with ``valid_from``.
        key: The column of the ids.
        columns: The columns that are compared.
    """
    by_time = ibis.window(group_by=key, order_by=VALID_FROM)
    is_first = ibis.row_number().over(by_time) == 0
    return table.select(
        **{
            name: ~is_first & ~table[name].identical_to(table[name].lag().over(by_time))
            for name in columns
        }
    )
