"""`python -m stableflow.training STAGE`: one stage; `torchrun --nproc_per_node N -m ...` for N processes."""

import argparse
import logging
from pathlib import Path

from stableflow.training.recipe import STAGES, run_stage


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    parser = argparse.ArgumentParser(prog="python -m stableflow.training")
    parser.add_argument("stage", choices=list(STAGES))
    parser.add_argument("--folder", type=Path, default=Path("runs/tiny"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--from", dest="start", type=Path, help="a bundle (folders tiny, clip, dinov2) to go on from")
    arguments = parser.parse_args()
    run_stage(arguments.stage, folder=arguments.folder, device=arguments.device, start=arguments.start)


if __name__ == "__main__":
    main()
