"""Every family passes the conformance suite, and the README's table is the suite's own."""

import json

import pytest
from families import FAMILIES
from models.conformance import BEGIN, END, JSON, PROPERTIES, README, table


@pytest.mark.parametrize("name", PROPERTIES)
@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_conformance(family, name):
    property = PROPERTIES[name]
    measured = property.measure(family)
    assert measured is None or measured <= property.bound


def test_the_readme_shows_what_was_measured():
    figures = json.loads(JSON.read_text())
    assert list(figures) == list(FAMILIES) and all(list(row) == list(PROPERTIES) for row in figures.values())
    text = README.read_text(encoding="utf-8")
    assert text[text.index(BEGIN) + len(BEGIN) : text.index(END)] == table(figures)
