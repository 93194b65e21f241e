"""Shared fixtures: real diffusers classes at tiny size, seeded random weights big enough that attention matters."""

import jaxtyping
import torch

torch.set_num_threads(1)  # tiny models gain nothing from more, and threads that share a busy core wait for each other
jaxtyping.install_import_hook("stableflow", "typechecking.check")

import pytest
from tiny_flux import tiny_flux_pipeline


@pytest.fixture(scope="session")
def pipeline():
    """A tiny random FLUX; tests must leave it as they found it."""
    return tiny_flux_pipeline()


@pytest.fixture(scope="session")
def model(pipeline):
    import stableflow as sf

    return sf.wrap(pipeline, name="random-flux")


@pytest.fixture
def own_pipeline():
    """A tiny random FLUX of the test's own, to change as it likes."""
    return tiny_flux_pipeline()
