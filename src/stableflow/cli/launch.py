"""Where the `stableflow` command starts: quiets the libraries before they are imported."""

import logging
import os


def main() -> None:
    """Run the command line."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    logging.getLogger("torchao").setLevel(logging.ERROR)  # lists the accelerators that it finds no code for
    from stableflow.cli.main import run  # only now, so that the settings above hold

    run()
