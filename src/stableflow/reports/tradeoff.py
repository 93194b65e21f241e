"""Edit success against preservation: every setting a point, settings of one curve joined."""

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from stableflow.benchmarks.summary import Summary
from stableflow.reports.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HIGHLIGHT, DARK, QUIET = "#d1495b", "#33475b", "#b9c2cd"
NAMED = 26  # settings up to which every point is labelled


def tradeoff_figure(
    summary: Summary, *, kept: str, edited: str, curves: Mapping[str, str], highlight: str = "vital"
) -> "Figure":
    """Draw figure `edited` over figure `kept`, with the intervals of both; up and right is better.

    Args:
        curves: The curve of each setting; empty for none.
        highlight: Settings and curves whose name begins so are drawn in colour.
    """
    figure, axes = new_figure(6.4, 4.6)
    ax = axes[0, 0]
    rows = {name: row for name, row in summary.items() if kept in row and edited in row}
    joined: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for name, row in rows.items():
        x, y = row[kept], row[edited]
        colour = HIGHLIGHT if name.startswith(highlight) else DARK
        crowded = len(rows) > NAMED and not name.startswith(highlight)
        if not crowded:
            errors = {"xerr": [[x.mean - x.low], [x.high - x.mean]], "yerr": [[y.mean - y.low], [y.high - y.mean]]}
            ax.errorbar(x.mean, y.mean, **errors, fmt="o", markersize=4, linewidth=0.5, color=colour, zorder=3)
            ax.annotate(
                name, (x.mean, y.mean), fontsize=6, xytext=(4, 3), textcoords="offset points", color=colour, rotation=20
            )
        else:
            ax.plot(x.mean, y.mean, "o", markersize=3, color=QUIET, zorder=1)
        if curves.get(name):
            joined[curves[name]].append((x.mean, y.mean))
    for curve, points in joined.items():
        chosen = curve.startswith(highlight)
        plain = DARK if len(rows) <= NAMED else QUIET
        ax.plot(
            *zip(*points), linewidth=1.4 if chosen else 0.7, color=HIGHLIGHT if chosen else plain, zorder=1 + chosen
        )
    ax.set_xlabel(f"{kept} (source kept)", fontsize=8)
    ax.set_ylabel(f"{edited} (edit made)", fontsize=8)
    ax.tick_params(labelsize=7)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(linewidth=0.3)
    return figure
