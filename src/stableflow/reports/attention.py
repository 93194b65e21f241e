"""What a point attends to, as a picture: heat over image tokens and a bar a word, groups of layers side by side."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from stableflow.editing.attention import AttentionResult, PointAttention, PromptAttention
from stableflow.errors import InputError
from stableflow.reports.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CELL = 2.3  # inches on a side of a picture
HEAT_OPACITY = 0.72
PLAIN, CHANGED, REST = "#7a8ca3", "#d1495b", "#d9dee5"


def attention_figure(
    result: AttentionResult,
    groups: Mapping[str, Sequence[int]],
    *,
    edit: int = 0,
    labels: Sequence[str] | None = None,
) -> "Figure":
    """Draw a row for each point: source and edit with the point, then for each group of layers where it looks.

    Heat lies over the source's picture where all of the group's layers had its keys injected, else over the edit's,
    and is scaled to each map's own maximum. Bars share one scale in a row; words that the edit changed are red.

    Args:
        groups: Layers by title, such as {"vital layers 0, 3": [0, 3], "other layers": [1, 2]}.
        edit: Which of the result's edits.
        labels: One a point; "point (x, y)" when None.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InputError: There is no such edit, or not one label a point.
    """
    if not 0 <= edit < len(result.edits):
        raise InputError(f"edit must lie in 0..{len(result.edits) - 1}, got {edit}.")
    labels = [f"point ({x}, {y})" for x, y in result.points] if labels is None else labels
    if len(labels) != len(result.points):
        raise InputError(f"{len(labels)} labels were given for {len(result.points)} points.")
    attention, pictures = result.edits[edit], (result.source_image[0], result.images[edit])
    means = {title: attention.mean(layers) for title, layers in groups.items()}
    figure, axes = _canvas(len(result.points), len(groups), len(attention.words))
    colours = _word_colours(result.source, attention)
    for row, point in enumerate(result.points):
        _show_picture(axes[row][0], pictures[0], point, f"{labels[row]}\nsource")
        _show_picture(axes[row][1], pictures[1], point, "edit")
        longest = max(float(max(mean.text[row].max(), mean.rest[row])) for mean in means.values())
        for column, (title, mean) in enumerate(means.items()):
            heat, bars = axes[row][2 + 2 * column : 4 + 2 * column]
            injected = set(groups[title]) <= set(result.injected)
            _show_heat(heat, pictures[0 if injected else 1], mean.image[row], point)
            heat.set_title(f"{title}\nimage {float(mean.image_sum[row]):.2f}", fontsize=8)
            _show_words(bars, attention.words, mean, row, colours, limit=longest * 1.28)
    figure.suptitle(f"{result.source.prompt}  →  {attention.prompt}", fontsize=9)
    return figure


def _canvas(points: int, groups: int, words: int) -> tuple["Figure", list[list[Any]]]:
    height = max(CELL, 0.17 * (words + 1) + 0.4)
    widths = [1.0, 1.0, *[1.0, 0.75] * groups]
    width = CELL * 1.12 * sum(widths)
    figure, axes = new_figure(
        width, (height + 0.45) * points + 0.35, rows=points, columns=len(widths), width_ratios=widths
    )
    return figure, axes.tolist()


def _word_colours(source: PromptAttention, edit: PromptAttention) -> list[str]:
    return [PLAIN if word in source.words else CHANGED for word in edit.words] + [REST]


def _show_picture(axes: Any, picture: Float[Tensor, "3 height width"], point: tuple[int, int], title: str) -> None:
    axes.imshow(rearrange(picture, "channels height width -> height width channels").numpy(), vmin=0, vmax=1)
    axes.plot(*point, "o", markersize=7, markerfacecolor="none", markeredgecolor="white", markeredgewidth=3)
    axes.plot(*point, "o", markersize=7, markerfacecolor="none", markeredgecolor=CHANGED, markeredgewidth=1.5)
    axes.set_title(title, fontsize=8)
    axes.set_axis_off()


def _show_heat(
    axes: Any, picture: Float[Tensor, "3 height width"], heat: Float[Tensor, "rows columns"], point: tuple[int, int]
) -> None:
    height, width = picture.shape[-2:]
    grey = picture.mean(0)
    large = F.interpolate(heat[None, None], size=(height, width), mode="nearest")[0, 0]
    axes.imshow(grey.numpy(), cmap="gray", vmin=0, vmax=1)
    axes.imshow(large.numpy(), cmap="inferno", vmin=0, alpha=HEAT_OPACITY)
    axes.plot(*point, "o", markersize=7, markerfacecolor="none", markeredgecolor="white", markeredgewidth=1.5)
    axes.set_axis_off()


def _show_words(
    axes: Any, words: Sequence[str], mean: PointAttention, row: int, colours: list[str], limit: float
) -> None:
    sums = [*mean.text[row].tolist(), float(mean.rest[row])]
    places = range(len(sums))
    axes.barh(places, sums, color=colours)
    axes.bar_label(axes.containers[0], [f"{value:.3f}" for value in sums], fontsize=6, padding=2)
    axes.set_yticks(places, [*words, "(end)"], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlim(0, limit)
    axes.set_xticks([])
    axes.spines[["top", "right", "bottom"]].set_visible(False)
