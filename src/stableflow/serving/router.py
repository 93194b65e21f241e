"""Which replica a request goes to: its session's own, with its model; another when that one is full."""

from typing import Any

from ray.serve.experimental.consistent_hash_router import (  # pyright: ignore[reportMissingImports]
    ConsistentHashRouter,
)


class SessionRouter(ConsistentHashRouter):
    """Ray's ring of sessions; among the replicas it names, those that hold the model come first."""

    async def choose_replicas(self, candidate_replicas: list[Any], pending_request: Any = None) -> list[list[Any]]:
        """Return replicas in the order in which they are tried."""
        ranks = await super().choose_replicas(candidate_replicas, pending_request)
        model = "" if pending_request is None else pending_request.metadata.multiplexed_model_id
        return sorted(ranks, key=lambda rank: bool(model) and model not in rank[0].multiplexed_model_ids)
