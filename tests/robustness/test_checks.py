"""Arguments: a plain value of the right type comes back, or an error that names the argument and what was given."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stableflow.checks import check_count, check_number, check_path, check_seed, check_steps, check_text, check_texts
from stableflow.errors import InputError

NO_NUMBER = [None, True, False, "1", "", b"1", [], [1], {}, object, 1j, np.array([1, 2]), np.bool_(True), torch.ones(2)]
NOT_FINITE = [float("nan"), float("inf"), -float("inf"), np.float32("nan"), torch.tensor(float("inf")), 10**400]
NO_COUNT = [*NO_NUMBER, *NOT_FINITE[:5], 1.5, 2.0, np.float64(2), torch.tensor(2.0)]
NO_TEXT = [None, 1, b"a", ["a"], "a\udcff", "\ud800"]


@pytest.mark.parametrize("value", NO_NUMBER + NOT_FINITE, ids=lambda value: repr(value)[:20])
def test_no_numbers(value):
    with pytest.raises(InputError, match="^weight must be"):
        check_number("weight", value)


@pytest.mark.parametrize("value", NO_COUNT, ids=lambda value: repr(value)[:20])
@pytest.mark.parametrize("check", [check_count, check_seed, check_steps])
def test_no_counts(check, value):
    with pytest.raises(InputError, match="^num must be"):
        check("num", value)


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_ranges(value, a, b):
    low, high = min(a, b), max(a, b)
    for given_value in (value, np.float64(value), torch.tensor(value, dtype=torch.float64)):
        if low <= value <= high:
            found = check_number("x", given_value, low, high)
            assert found == value and type(found) is float
        else:
            with pytest.raises(InputError, match="^x must lie in"):
                check_number("x", given_value, low, high)


@given(st.integers(-(2**80), 2**80))
def test_seeds(value):
    if 0 <= value < 2**63:
        assert torch.Generator().manual_seed(check_seed("seed", value)) is not None
    else:
        with pytest.raises(InputError, match="^seed must lie in"):
            check_seed("seed", value)


def test_open_ends_and_numpy_counts():
    with pytest.raises(InputError):
        check_number("x", 0, 0, 1, above=True)
    found = check_count("n", np.int32(7))
    assert found == 7 and type(found) is int


@pytest.mark.parametrize("value", NO_TEXT, ids=ascii)
def test_no_texts(value):
    with pytest.raises(InputError, match="^prompt"):
        check_text("prompt", value)
    with pytest.raises(InputError, match=r"^prompt\[1\]"):
        check_texts("prompt", ["a", value])


def test_empty_texts_and_texts():
    with pytest.raises(InputError, match="empty"):
        check_text("prompt", "  ", empty=False)
    assert check_texts("prompt", "a") == ("a",)
    assert check_text("prompt", "\U0001f600 é") == "\U0001f600 é"


@pytest.mark.parametrize("value", [None, 3, b"a", "a\0b", "~nosuchuserhere/a.png"])
def test_no_paths(value):
    with pytest.raises(InputError, match="^image"):
        check_path("image", value)
    assert check_path("image", "~/a") == Path.home() / "a"
