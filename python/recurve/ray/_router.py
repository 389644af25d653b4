"""Which replica a request of a served model goes to."""

from __future__ import annotations

from typing import Any

from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter


class SessionRouter(ConsistentHashRouter):  # type: ignore[misc]
    """All requests of a session go to one replica, and never to another one because it is busy: the states of the
    session are there. Requests without a session go to any replica."""

    async def choose_replicas(self, candidate_replicas: list[Any], pending_request: Any = None) -> list[list[Any]]:
        ranks: list[list[Any]] = await super().choose_replicas(candidate_replicas, pending_request)
        sticks = pending_request is not None and pending_request.metadata.session_id
        return ranks[:1] if sticks else ranks
