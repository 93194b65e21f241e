"""One bundled model for all tests here."""

import pytest

import stableflow as sf


@pytest.fixture(scope="session")
def tiny():
    return sf.load("tiny")
