"""`stableflow train`: the recipes of the bundled models, stage by stage."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from stableflow.checks import check_path
from stableflow.training.recipe import RECIPES, STAGES, run_stage


def train(
    stage: Annotated[str, typer.Argument(help=f"One of {', '.join(STAGES)}, in this order.")],
    model: Annotated[str, typer.Option("--model", "-m", help=f"One of {', '.join(RECIPES)}.")] = "tiny",
    folder: Annotated[Path | None, typer.Option("--folder", help="Data, checkpoints and results [runs/MODEL].")] = None,
    start: Annotated[
        Path | None, typer.Option("--from", help="A bundle (folders tiny, clip, dinov2) whose weights to go on from.")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="cpu or cuda.")] = "cpu",
    steps: Annotated[
        int | None, typer.Option("--steps", help="Of the stage flow; may be raised before the rate falls.")
    ] = None,
) -> None:
    """Run or resume one stage of the training.

    For several processes of one thread (the quickest way on a CPU):
    OMP_NUM_THREADS=1 torchrun --nproc_per_node 2 -m stableflow.training STAGE
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    folder = None if folder is None else check_path("--folder", folder)
    run_stage(stage, model=model, folder=folder, device=device, start=start, flow_steps=steps)
