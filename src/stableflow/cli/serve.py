"""`stableflow serve`: the web app and its APIs over replicas on a Ray cluster."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer

from stableflow.cli.app import DoorOptions, LimitOptions, loading_of, open_door
from stableflow.cli.grouped import grouped
from stableflow.cli.options import ModelOptions
from stableflow.cli.output import Format, Reporter
from stableflow.errors import InputError, MissingExtraError
from stableflow.jobs.on_ray import Placement, connected
from stableflow.models.base import FlowModel


@dataclass(frozen=True)
class ReplicaOptions:
    """Where the work is done."""

    title: ClassVar[str] = "Replicas"

    replicas: Annotated[int, typer.Option("--replicas", min=1, help="Processes, each with one model at a time.")] = 1
    also: Annotated[list[str] | None, typer.Option("--also", help="A further model; may be repeated.")] = None
    batch: Annotated[
        int, typer.Option("--batch", min=1, help="Edits of one picture drawn together; above 1 equal to rounding.")
    ] = 1
    address: Annotated[
        str | None,
        typer.Option("--address", help="Of a running cluster: auto or host:port [RAY_ADDRESS, or this machine alone]."),
    ] = None
    gpu_type: Annotated[
        str | None, typer.Option("--gpu-type", help="Only on machines with this accelerator, such as A100.")
    ] = None
    sessions: Annotated[
        Path | None,
        typer.Option("--sessions", help="Folder, on a disk of all machines, that keeps pictures' sessions."),
    ] = None
    sessions_gb: Annotated[float, typer.Option("--sessions-gb", min=0.001, help="That it may take.")] = 20.0
    name: Annotated[str, typer.Option("--name", help="Of the application; the same name again replaces replicas.")] = (
        "stableflow"
    )
    leave: Annotated[bool, typer.Option("--leave", help="Replicas stay on the cluster when this command ends.")] = False


@grouped
def serve(
    model: ModelOptions,
    replicas: ReplicaOptions,
    door: DoorOptions,
    limit: LimitOptions,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for what visitors make.")] = Path("out/app"),
) -> None:
    """Serve many users: the web app and OpenAI's API here, models and sessions in replicas on a Ray cluster."""
    try:
        import ray.serve  # pyright: ignore[reportMissingImports]

        from stableflow.serving import application
    except ImportError as error:
        raise MissingExtraError("Serving needs its extra: pip install 'stableflow[serve]'.") from error
    reporter, limits, loaded = Reporter(quiet=False, form=Format.text), limit.limits(), loading_of(model)
    names = [loaded["model"], *(replicas.also or ())]
    if len(set(names)) < len(names):
        raise InputError(f"Every model is served once; got {', '.join(names)}.")
    with connected(Placement(replicas.replicas, replicas.address, replicas.gpu_type)) as ray:
        gpus = int(ray.cluster_resources().get("GPU", 0))
        serving = application.Serving(
            {name: (partial(opened, replace(model, model=name)), loaded | {"model": name}) for name in names},
            replicas.name, replicas.replicas, replicas.batch, replicas.sessions, int(replicas.sessions_gb * 2**30),
            1.0 if gpus else 0.0, replicas.gpu_type,
        )  # fmt: skip
        reporter.say(f"starting {serving.replicas} replica(s) of {', '.join(names)} ...")
        opening = partial(application.start, serving, limits)
        try:
            open_door(opening, loaded, door, limits, out, reporter, hands=serving.hands)
        finally:
            if not replicas.leave:
                application.stop(serving.name)


def opened(model: ModelOptions) -> FlowModel:
    """Load a model in a replica."""
    quiet: Any = Reporter(quiet=True, form=Format.text)
    return model.open(quiet)
