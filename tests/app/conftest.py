"""One running app for all tests here."""

import pytest
from app_tools import Guest, serving

import stableflow as sf


@pytest.fixture(scope="session")
def tiny():
    return sf.load("tiny")


@pytest.fixture(scope="session")
def house(tiny, tmp_path_factory):
    with serving(tiny, tmp_path_factory.mktemp("app")) as house:
        yield house


@pytest.fixture
def guest(house):
    return Guest(house.base)


@pytest.fixture(scope="session")
def regular(house):
    """A guest who has been here before."""
    return Guest(house.base)
