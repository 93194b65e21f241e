"""`python -m stableflow.training STAGE`: one stage; `torchrun --nproc_per_node N -m ...` for N processes."""

import argparse
import logging
from pathlib import Path

from stableflow.training.recipe import RECIPES, STAGES, run_stage


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    parser = argparse.ArgumentParser(prog="python -m stableflow.training")
    parser.add_argument("stage", choices=list(STAGES))
    parser.add_argument("--model", choices=list(RECIPES), default="tiny")
    parser.add_argument("--folder", type=Path, help="[runs/MODEL]")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--from", dest="start", type=Path, help="a bundle (folders tiny, clip, dinov2) to go on from")
    parser.add_argument("--steps", type=int, help="of the stage flow; may be raised before the rate falls")
    given = parser.parse_args()
    run_stage(
        given.stage,
        model=given.model,
        folder=given.folder,
        device=given.device,
        start=given.start,
        flow_steps=given.steps,
    )


if __name__ == "__main__":
    main()
