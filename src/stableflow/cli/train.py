"""`stableflow train`: the recipe of the bundled model, stage by stage."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from stableflow.checks import check_path
from stableflow.training.recipe import STAGES, run_stage


def train(
    stage: Annotated[str, typer.Argument(help=f"One of {', '.join(STAGES)}, in this order.")],
    folder: Annotated[Path, typer.Option("--folder", help="Data, checkpoints and results.")] = Path("runs/tiny"),
    start: Annotated[
        Path | None, typer.Option("--from", help="A bundle (folders tiny, clip, dinov2) whose weights to go on from.")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="cpu or cuda.")] = "cpu",
) -> None:
    """Run or resume one stage of the training.

    For several processes of one thread (the quickest way on a CPU):
    OMP_NUM_THREADS=1 torchrun --nproc_per_node 2 -m stableflow.training STAGE
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    check_path("--folder", folder)
    run_stage(stage, folder=folder, device=device, start=start)
