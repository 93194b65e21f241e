"""Vitality as pictures: bars with intervals, and a heat map over layers and step windows."""

from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from stableflow.flow.time_grid import TimeGrid
from stableflow.reports.figures import new_figure
from stableflow.vital.vitality import Vitality
from stableflow.vital.windows import split_times

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CHOSEN, OTHER, DOUBLE = "#d1495b", "#7a8ca3", "#eef1f5"
WIDEST = 14.0  # inches


def vitality_figure(vitality: Vitality) -> "Figure":
    """Draw a bar a layer with its 95% interval: chosen layers red, double layers on a shaded ground, flags by name."""
    count = len(vitality.mean)
    figure, axes = new_figure(min(WIDEST, max(5.0, 1.6 + 0.42 * count)), 3.4)
    ax = axes[0, 0]
    mean, (low, high) = vitality.mean, vitality.interval()
    for index, kind in enumerate(vitality.kinds):
        if kind == "double":
            ax.axvspan(index - 0.5, index + 0.5, color=DOUBLE, zorder=0)
    chosen = vitality.chosen
    colours = [CHOSEN if index in chosen else OTHER for index in range(count)]
    errors = [(mean - low).clamp(min=0).tolist(), (high - mean).clamp(min=0).tolist()]
    ax.bar(range(count), mean.tolist(), yerr=errors, color=colours, capsize=2, error_kw={"linewidth": 1}, zorder=2)
    boundary = vitality.choice.boundary(mean)
    ax.axhline(boundary, color=CHOSEN, linestyle="--", linewidth=0.8, zorder=1)
    for layer, flag in vitality.flags.items():
        ax.annotate(flag, (layer, float(high[layer])), rotation=90, ha="center", va="bottom", fontsize=7)
    ax.set_xticks(range(0, count, 1 if count <= 30 else 2))
    ax.tick_params(labelsize=7)
    ax.set_xlim(-0.6, count - 0.4)
    ax.set_xlabel("layer in execution order (shaded: double)", fontsize=8)
    ax.set_ylabel("vitality = 1 - similarity", fontsize=8)
    similarity = next(iter(vitality.by_similarity))
    ax.set_title(
        f"{vitality.model}: {', '.join(map(str, chosen))} by {vitality.choice}\n"
        f"{similarity}, {len(vitality.prompts)} prompts, {vitality.protocol.get('num_steps')} steps",
        fontsize=8,
    )
    ax.spines[["top", "right"]].set_visible(False)
    return figure


def windows_figure(windows: Float[Tensor, "layers windows"], grid: TimeGrid, *, model: str) -> "Figure":
    """Draw how vital each layer is when it is bypassed in one window of steps only; noise on the left."""
    layers, count = windows.shape
    figure, axes = new_figure(1.8 + 0.75 * count, 1.4 + 0.26 * layers)
    ax = axes[0, 0]
    shown = ax.imshow(windows.numpy(), cmap="magma", vmin=0, aspect="auto")
    labels = [f"{high:.2f}-{low:.2f}" for low, high in split_times(grid, count)]
    ax.set_xticks(range(count), labels, fontsize=7, rotation=30)
    ax.set_yticks(range(0, layers, 1 if layers <= 30 else 2))
    ax.tick_params(axis="y", labelsize=7)
    ax.set_xlabel("bypassed at flow times (1 is noise)", fontsize=8)
    ax.set_ylabel("layer", fontsize=8)
    ax.set_title(f"{model}: vitality by step window", fontsize=8)
    figure.colorbar(shown, ax=ax).ax.tick_params(labelsize=7)
    if layers * count <= 120:
        middle = float(windows.max()) / 2
        for row in range(layers):
            for column in range(count):
                value = float(windows[row, column])
                colour = "black" if value > middle else "white"
                ax.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=6, color=colour)
    return figure
