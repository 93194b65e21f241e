"""What builds the documentation site: its link check notices faults, its reference says what docstrings say."""

import runpy
from pathlib import Path

import pytest

import stableflow as sf

SITE = runpy.run_path(str(Path(__file__).parents[1] / ".ci" / "site.py"))


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ('<a href="other.html#here">', []),
        ('<a href="gone.html">', ["gone.html, which is not there"]),
        ('<a href="other.html#gone">', ["an anchor that is not there"]),
        ('<img src="gone.png">', ["gone.png, which is not there"]),
        ('<script src="https://elsewhere.example/a.js"></script>', ["loads https://elsewhere.example/a.js"]),
        ('<a href="https://arxiv.org/abs/2411.14430">', []),
    ],
    ids=["right", "page", "anchor", "picture", "from elsewhere", "a link out"],
)
def test_links_are_checked(tmp_path, body, wrong):
    (tmp_path / "index.html").write_text(body)
    (tmp_path / "other.html").write_text('<h2 id="here">')
    found = SITE["check"](tmp_path)
    assert len(found) == len(wrong) and all(part in line for part, line in zip(wrong, found))


def test_no_site_is_not_a_site_without_faults(tmp_path):
    assert SITE["check"](tmp_path)


def test_the_reference_has_arguments_errors_and_examples():
    text = SITE["entry"]("inject", sf.inject)
    assert "## inject" in text and "- `source`: From `generate`" in text and "- `FingerprintError`: " in text
    assert "```python\n>>> with inject(pipe, source=source) as start:" in text and text.count("```") % 2 == 0
    whole = SITE["entry"]("StableFlow", sf.StableFlow)
    assert "### StableFlow.speed" not in whole or "Return" in whole


def test_links_of_pages_that_move():
    moved = SITE["moved"](
        "[log](docs/log.md#now) [card](src/stableflow/bundled/MODEL_CARD.md) ![x](docs/images/a.png)", Path()
    )
    assert moved == "[log](log.md#now) [card](model-card.md) ![x](images/a.png)"
    assert SITE["on_site"]("[demo](../examples/demo.py) [start](../README.md#families)") == (
        "demo (`../examples/demo.py`) [start](readme.md#families)"
    )
