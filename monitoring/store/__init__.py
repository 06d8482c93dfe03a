"""The store of results, decisions, alerts, refits and what people did, behind one interface.

Everything that is taken on by a process is claimed first, and a claim is a lease: its owner renews
it, and one that is not renewed is taken over. Every change by a person is written in the same
transaction as its entry in the audit trail.
"""

from monitoring.store.protocol import AlertStore
from monitoring.store.records import (
    ORDERS_UNDER_WAY,
    UNDER_WAY,
    ClaimLost,
    Notification,
    Order,
    OrderRequest,
    OrderState,
    Refit,
    RefitState,
    UnknownId,
    WrongState,
)
from monitoring.store.sql import SqlStore, open_store
from monitoring.store.tables import (
    ALERTS,
    AUDIT,
    DECISIONS,
    NOTIFICATIONS,
    REFITS,
    RESULTS,
    SCHEMA,
    SCHEMA_VERSION,
    has_tables,
)

__all__ = [
    "ALERTS",
    "AUDIT",
    "DECISIONS",
    "NOTIFICATIONS",
    "ORDERS_UNDER_WAY",
    "REFITS",
    "RESULTS",
    "SCHEMA",
    "SCHEMA_VERSION",
    "UNDER_WAY",
    "AlertStore",
    "ClaimLost",
    "Notification",
    "Order",
    "OrderRequest",
    "OrderState",
    "Refit",
    "RefitState",
    "SqlStore",
    "UnknownId",
    "WrongState",
    "has_tables",
    "open_store",
]
