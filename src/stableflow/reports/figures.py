"""Opening and writing figures; matplotlib is an extra."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stableflow.errors import MissingExtraError
from stableflow.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 130


def check_figures() -> None:
    """Raise MissingExtraError if figures cannot be drawn: before a long job, not after it."""
    try:
        importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise MissingExtraError("Figures need matplotlib: pip install 'stableflow[bench]'.") from error


def new_figure(width: float, height: float, *, rows: int = 1, columns: int = 1, **grid: Any) -> tuple["Figure", Any]:
    """Return a figure of this size in inches and its axes, (rows, columns).

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    check_figures()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **grid)


def save_figure(figure: "Figure", path: str | Path) -> Path:
    """Write a figure as PNG or SVG, by the ending of `path`; whole or not at all."""
    path = Path(path)
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix.removeprefix(".") or "png", dpi=DPI)
    return path
