"""The replicas as an application of Ray Serve: started, rolled over to new ones, and taken down."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import serve  # pyright: ignore[reportMissingImports]
from ray.serve.config import RequestRouterConfig  # pyright: ignore[reportMissingImports]
from ray.serve.handle import DeploymentHandle  # pyright: ignore[reportMissingImports]

from stableflow.app.limits import Limits
from stableflow.app.saved import SavedSources
from stableflow.serving.far import FarStudio
from stableflow.serving.replica import Opening, Replica


@dataclass(frozen=True)
class Serving:
    """How models are served.

    Args:
        models: What opens each model, and how it is loaded by the names of an order; the usual one first.
        name: Of the application; started again under it, the replicas are replaced one after another.
        replicas: Processes, each with one model at a time.
        batch: Requests of one session that may be drawn together; equal to single ones to rounding.
        sessions: A folder for sessions, on a disk that all machines have; None keeps them in memory alone.
        sessions_bytes: That it may take.
        gpus: Of a replica.
        gpu_type: Only on machines with this accelerator, by Ray's name for it.
        drain: Seconds that a replica which is to end may take for what it has begun.
    """

    models: Mapping[str, tuple[Opening, Mapping[str, Any]]]
    name: str = "stableflow"
    replicas: int = 1
    batch: int = 1
    sessions: Path | None = None
    sessions_bytes: int = 20 * 2**30
    gpus: float = 0.0
    gpu_type: str | None = None
    drain: float = 600.0

    @property
    def hands(self) -> int:
        """How many requests the replicas take at once: each the batch that it draws, and the next."""
        return 2 * self.batch * self.replicas


def start(serving: Serving, limits: Limits) -> dict[str, FarStudio]:
    """Start the application on the cluster that this process has joined, or roll it over; returns its models.

    Args:
        limits: Of what waits, and of the sessions that a replica keeps.
    """
    logging.getLogger("ray.serve").setLevel(logging.ERROR)  # its news are not for the user of a command
    serve.start(proxy_location="Disabled")
    resources: dict[str, Any] = {"num_cpus": 1, "num_gpus": serving.gpus}
    if serving.gpu_type is not None:
        resources["accelerator_type"] = serving.gpu_type
    deployment: Any = serve.deployment(
        Replica, name="replica", num_replicas=serving.replicas, ray_actor_options=resources,
        max_ongoing_requests=2 * serving.batch, max_queued_requests=limits.waiting,
        graceful_shutdown_timeout_s=serving.drain,
        request_router_config=RequestRouterConfig(
            request_router_class="stableflow.serving.router.SessionRouter",  # pyright: ignore[reportArgumentType]
            request_router_kwargs={"num_fallback_replicas": serving.replicas - 1},
        ),
    )  # fmt: skip
    saved = None if serving.sessions is None else SavedSources(serving.sessions.resolve(), serving.sessions_bytes)
    application = deployment.bind(serving.models, limits, serving.batch, saved)
    handle: DeploymentHandle = serve.run(application, name=serving.name, route_prefix=None)
    return {name: FarStudio(handle, name, loaded) for name, (_, loaded) in serving.models.items()}


def stop(name: str) -> None:
    """Take an application down; its replicas end what they have begun."""
    serve.delete(name)
