"""What users run: no shape checks at run time, so that it is our own checks that must hold."""

import jaxtyping
import pytest


@pytest.fixture(autouse=True)
def as_users_run_it():
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
