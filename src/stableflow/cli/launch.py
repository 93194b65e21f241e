"""Where the `stableflow` command starts: quiets the libraries before they are imported."""

import logging
import os
import sys

QUIETED = ("torchao", "torch.utils._pytree", "torch.distributed.elastic.multiprocessing.redirects", "diffusers",
           "transformers", "huggingface_hub")  # fmt: skip
"""Whose own messages are for `-v`: torchao tells of every accelerator that it finds no code for."""


def main() -> None:
    """Run the command line."""
    if not {"-v", "--verbose"} & set(sys.argv[1:]):
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
        for noisy in QUIETED:
            logging.getLogger(noisy).setLevel(logging.CRITICAL)
    from stableflow.cli.main import run  # only now, so that the settings above hold

    run()
