"""Where the `stableflow` command starts: quiets the libraries before they are imported."""

import logging
import os


def main() -> None:
    """Run the command line."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    for noisy in ("torchao", "torch.utils._pytree"):  # of accelerators that torchao finds no code for
        logging.getLogger(noisy).setLevel(logging.ERROR)
    from stableflow.cli.main import run  # only now, so that the settings above hold

    run()
