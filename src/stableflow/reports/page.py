"""One HTML page a benchmark: tables, curve, gallery, settings, command; works offline, with everything inside it."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stableflow.benchmarks.records import check_job
from stableflow.benchmarks.summary import Summary, categories, failures, summarise
from stableflow.decoding import PNG_SIGNATURE
from stableflow.errors import LoadError, MissingExtraError
from stableflow.files import write_text_atomic
from stableflow.reading import confined, read_json
from stableflow.reports.tradeoff import tradeoff_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LARGEST_PICTURE = 100_000_000  # bytes
SHOWN = 3  # cases in each part of the gallery


@dataclass(frozen=True)
class Axes:
    """Which figures are set against each other, and rank cases by their product.

    Args:
        kept: How much of the source is kept.
        edited: Whether the edit was made.
    """

    kept: str
    edited: str


def write_page(
    folder: Path,
    records: Sequence[Mapping[str, Any]],
    axes: Sequence[Axes],
    *,
    title: str,
    command: str,
    gallery: Sequence[str] = (),
) -> Path:
    """Write report.html into a benchmark's folder.

    Args:
        folder: Holds job.json and pictures/, as `Benchmark` wrote them.
        records: Of the benchmark.
        axes: A curve each; the first ranks the gallery.
        gallery: Settings whose best, median and worst cases are shown.

    Raises:
        LoadError: The folder holds no benchmark.
        MissingExtraError: jinja2 or matplotlib is not installed.
    """
    try:
        from jinja2 import Environment
    except ImportError as error:
        raise MissingExtraError("Reports need jinja2: pip install 'stableflow[bench]'.") from error
    job = check_job(read_json(folder / "job.json", what="what the benchmark is"), str(folder / "job.json"))
    summary = summarise(records)
    curves = {name: str(setting.get("curve", "")) for name, setting in job["settings"].items()}
    template = resources.files("stableflow.reports") / "page.html"
    page = Environment(autoescape=True).from_string(template.read_text(encoding="utf-8"))
    html = page.render(
        title=title,
        trials=len(records),
        cases=len({record["case"] for record in records}),
        settings=job["settings"],
        failed=failures(records),
        tables=_tables(records, summary),
        curves=[
            {
                "title": f"{axis.edited} against {axis.kept}",
                "svg": _svg(tradeoff_figure(summary, kept=axis.kept, edited=axis.edited, curves=curves)),
            }
            for axis in axes
        ],
        gallery=[_gallery(folder, records, name, axes[0]) for name in gallery],
        errors=[record for record in records if "error" in record],
        described=json.dumps(job, indent=1),
        command=command,
    )
    write_text_atomic(folder / "report.html", html)
    return folder / "report.html"


def _tables(records: Sequence[Mapping[str, Any]], summary: Summary) -> dict[str, Any]:
    found = categories(records)
    tables = {"All cases": _table(summary)}
    if len(found) > 1:
        tables |= {name: _table(summarise(records, category=name)) for name in found}
    return tables


def _table(summary: Summary) -> dict[str, Any]:
    figures = list(dict.fromkeys(name for row in summary.values() for name in row))
    rows = [{"setting": name, "cells": [row.get(figure) for figure in figures]} for name, row in summary.items()]
    return {"figures": figures, "rows": rows}


def _gallery(folder: Path, records: Sequence[Mapping[str, Any]], setting: str, axes: Axes) -> dict[str, Any]:
    """The best, median and worst cases by edited x kept; where the product ties, by what is kept."""
    done = [record for record in records if record["setting"] == setting and _has(record, axes)]

    def rank(record: Mapping[str, Any]) -> tuple[float, float]:
        edited, kept = (sum(record["figures"][name]) for name in (axes.edited, axes.kept))
        return edited * kept, kept

    ranked = sorted(done, key=rank, reverse=True)
    middle = max(0, len(ranked) // 2 - SHOWN // 2)
    parts = {"best": ranked[:SHOWN], "median": ranked[middle : middle + SHOWN], "worst": ranked[-SHOWN:]}
    return {
        "name": setting,
        "parts": [
            {"name": name, "cases": [_shown(folder, record, axes) for record in part]} for name, part in parts.items()
        ],
    }


def _has(record: Mapping[str, Any], axes: Axes) -> bool:
    """Whether a record has what ranks it: numbers for both figures."""
    rows = [record.get("figures", {}).get(name) for name in (axes.edited, axes.kept)]
    return "error" not in record and all(row and None not in row for row in rows)


def _shown(folder: Path, record: Mapping[str, Any], axes: Axes) -> dict[str, Any]:
    wanted = [("source: " + record["prompt"], record["pictures"]["source"])]
    wanted += list(zip(record["edits"], record["pictures"]["edits"]))
    if record["pictures"].get("target"):
        wanted.append(("the true edit", record["pictures"]["target"]))
    figures = {name: round(sum(record["figures"][name]), 3) for name in (axes.edited, axes.kept)}
    return {
        "id": record["case"],
        "category": record["category"],
        "figures": ", ".join(f"{name} {value}" for name, value in figures.items()),
        "pictures": [{"label": label, "data": _data_url(folder / "pictures", name)} for label, name in wanted],
    }


def _data_url(folder: Path, name: str) -> str:
    """A picture of the folder's own, as part of the page; whatever else a name points at is never read into it."""
    path = confined(folder, name, f"{folder.parent}, a record's picture")
    if not path.is_file():
        return ""
    if path.stat().st_size > LARGEST_PICTURE:
        raise LoadError(f"{path} is larger than a picture of a benchmark can be; it is not put into the page.")
    content = path.read_bytes()
    if not content.startswith(PNG_SIGNATURE):
        raise LoadError(f"{path} is no PNG; it is not put into the page.")
    return "data:image/png;base64," + base64.b64encode(content).decode()


def _svg(figure: "Figure") -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    text = buffer.getvalue()
    return text[text.index("<svg") :]
