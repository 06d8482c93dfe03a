"""What people asked for, in the SQL store: requests that are carried out once."""

import time
import uuid
from typing import Any

from sqlalchemy import Connection, and_, or_, select

from monitoring.store.records import ORDERS_UNDER_WAY, OrderRequest, OrderState, WrongState
from monitoring.store.sql_alerts import append_entry
from monitoring.store.sql_part import SqlPart, change_own, lease
from monitoring.store.tables import ORDERS, RUN_REQUESTS, stamp
from refit.alert import AuditEntry

IS_UNDER_WAY = ORDERS.c.state.in_(ORDERS_UNDER_WAY)


class SqlOrders(SqlPart):
    """Requests, and how runs are started."""

    def add_order(self, request: OrderRequest, entry: AuditEntry) -> None:
        """Keep a request.

        Raises:
            WrongState: One of its kind is under way.
        """
        with self._database.writing() as db:
            for body in db.scalars(select(ORDERS.c.body).where(IS_UNDER_WAY)):
                other = OrderRequest.parse_json(body)
                if other.order is request.order:
                    raise WrongState(
                        f"{other.by} has asked to {other.order} already, and that is under way"
                    )
            db.execute(
                ORDERS.insert().values(
                    request_id=request.request_id,
                    alert_id=request.alert_id,
                    requested_at=stamp(request.at),
                    state=request.state,
                    owner="",
                    lease_until=0.0,
                    body=request.model_dump_json(),
                )
            )
            append_entry(db, entry)

    def claim_order(self, lease_seconds: float) -> OrderRequest | None:
        """Take on the oldest request that nobody carries out, if there is one."""
        is_free = or_(
            ORDERS.c.state == OrderState.REQUESTED,
            and_(IS_UNDER_WAY, ORDERS.c.lease_until < time.time()),
        )
        free = select(ORDERS.c.body).where(is_free).order_by(ORDERS.c.requested_at).limit(1)
        with self._database.writing() as db:
            body = db.scalar(free)
            if body is None:
                return None
            before = OrderRequest.parse_json(body)
            after = before.model_copy(
                update={
                    "owner": uuid.uuid4().hex,
                    "attempt": before.attempt + 1,
                    "state": OrderState.RUNNING,
                }
            )
            mine = ORDERS.c.request_id == before.request_id
            change_own(
                db,
                ORDERS,
                mine,
                before.request_id,
                state=after.state,
                owner=after.owner,
                lease_until=lease(lease_seconds),
                body=after.model_dump_json(),
            )
        return after

    def renew_order(self, request: OrderRequest, lease_seconds: float) -> None:
        """Prolong a claim.

        Raises:
            ClaimLost: Another owner has it.
        """
        with self._database.writing() as db:
            _change_order(db, request, lease_until=lease(lease_seconds))

    def set_order(self, request: OrderRequest, state: OrderState, outcome: str) -> OrderRequest:
        """Set a request's state.

        Raises:
            ClaimLost: Another owner has the claim.
        """
        after = request.model_copy(update={"state": state, "outcome": outcome})
        with self._database.writing() as db:
            _change_order(db, request, state=after.state, body=after.model_dump_json())
        return after

    def orders(self, alert_id: str | None = None) -> list[OrderRequest]:
        """Requests, newest first; those of one alert when it is given."""
        query = select(ORDERS.c.body).order_by(ORDERS.c.requested_at.desc(), ORDERS.c.request_id)
        if alert_id is not None:
            query = query.where(ORDERS.c.alert_id == alert_id)
        return [OrderRequest.parse_json(body) for body in self._bodies(query)]

    def keep_run_request(self, pipeline: str, body: str) -> None:
        """Keep how a pipeline is started on the cluster; it replaces what was kept."""
        insert = self._database.insert(RUN_REQUESTS)
        with self._database.writing() as db:
            db.execute(
                insert.on_conflict_do_update(
                    index_elements=list(RUN_REQUESTS.primary_key),
                    set_={"body": insert.excluded.body},
                ),
                [{"pipeline": pipeline, "body": body}],
            )

    def run_request(self, pipeline: str) -> str:
        """How a pipeline is started on the cluster, as JSON; empty when nobody has said so."""
        found = self._bodies(select(RUN_REQUESTS.c.body).where(RUN_REQUESTS.c.pipeline == pipeline))
        return found[0] if found else ""


def _change_order(db: Connection, request: OrderRequest, **values: Any) -> None:
    mine = and_(
        ORDERS.c.request_id == request.request_id, ORDERS.c.owner == request.owner, IS_UNDER_WAY
    )
    change_own(db, ORDERS, mine, f"request {request.request_id}", **values)
