"""The libraries behind models are imported when the first model is made, and without what they say of extras."""

import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager

BEHIND_MODELS = ("diffusers.pipelines.pipeline_utils", "diffusers.models.embeddings")
"""What brings diffusers, transformers, accelerate and, where it is installed, torchao: seconds, so not at import."""


@contextmanager
def quietly() -> Iterator[None]:
    """Without what the libraries log of accelerators and extras that are not here; errors are told."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(before)


def import_libraries() -> None:
    """Import the libraries behind models, quietly; does nothing where they are there."""
    with quietly():
        for name in BEHIND_MODELS:
            importlib.import_module(name)
