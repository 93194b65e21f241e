"""`strength="auto"`: the least change that still makes the edit, found without anybody's eyes or labels."""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from stableflow.editing.leaning import leaning
from stableflow.editing.result import EditResult
from stableflow.editing.run import Method, Run
from stableflow.editing.source import Source
from stableflow.editing.wishes import Edit, Wishes, as_edits
from stableflow.errors import InputError
from stableflow.models.base import Conditioning

AUTO = "auto"
CUT = 0.625  # of `progress`, from which an edit counts as made (docs/log.md)
FINEST = 1 / 16  # between two strengths that are told apart
SHARE = 0.25  # of the picture: where the free edit changes most


class Drawing(Method, Protocol):
    """What is asked of an editor."""

    def edit(self, source: Source, prompts: Wishes, **how: Any) -> EditResult: ...


@dataclass
class _Search:
    """Bisection for one edit: `low` is known to be too little, `high` to be enough."""

    result: EditResult
    row: int
    low: float = 0.0
    high: float = 1.0
    made: float = 1.0

    @property
    def middle(self) -> float:
        return (self.low + self.high) / 2


def least_change(editor: Drawing, source: Source, wishes: Wishes, how: Mapping[str, Any]) -> EditResult:
    """Return each edit at the least strength that makes it, by bisection over the dial, all edits side by side.

    Every edit is drawn free first, which tells where it leads; then at four strengths, half as far apart each time. An
    edit counts as made from `CUT` of `progress`. The strengths found stand in the recipe, which draws the same pictures
    again.

    Args:
        how: The other arguments of `edit`.

    Cost: five edits, and four rows of a pass to judge each and the source.

    Raises:
        InputError: The prompts are given as a conditioning, one brings a strength of its own, or there are several
            for an editor that walks all its edits at one strength.
    """
    edits = _checked(editor, wishes, how["together"])
    with torch.no_grad():
        run = Run(editor, source, wishes, region=how["region"], task=how["task"])
        start = leaning(run, run.rows(run.clean))

    def draw(strengths: Sequence[float]) -> tuple[EditResult, Float[Tensor, " edits"]]:
        each = {"strength": strengths[0]} if len(edits) == 1 else {}
        tried = edits if each else [dataclasses.replace(e, strength=s) for e, s in zip(edits, strengths)]
        drawn = editor.edit(source, tried, **{**how, "region": run.asked}, **each)
        with torch.no_grad():
            return drawn, leaning(run, drawn.latents.to(run.clean))

    free, end = draw([1.0] * len(edits))
    _warn(edits, end, start)
    searches, rounds = [_Search(free, row) for row in range(len(edits))], [free]
    while searches[0].high - searches[0].low > FINEST:
        drawn, leanings = draw([search.middle for search in searches])
        rounds.append(drawn)
        gone = moved(drawn.latents.to(run.clean), run.clean, free.latents.to(run.clean))
        for search, made in zip(searches, progress(leanings, start, end, gone).tolist()):
            if made >= CUT:
                search.high, search.result, search.made = search.middle, drawn, made
            else:
                search.low = search.middle
    return _gathered(searches, rounds, run)


def progress(
    leanings: Float[Tensor, " edits"],
    source: Float[Tensor, " edits"],
    free: Float[Tensor, " edits"],
    gone: Float[Tensor, " edits"],
) -> Float[Tensor, " edits"]:
    """Return how far each edit is made, 0 for the source and 1 for the free edit: the mean of two signals.

    The one is the way of its `leaning` from the source's to the free edit's, in [0, 1.2]; the other what it `moved`.
    Each alone is fooled where the other is not: words by a figure that is half there, latents by a change of shade.
    """
    return (((leanings - source) / (free - source).clamp(min=1e-6)).clamp(0, 1.2) + gone) / 2


def moved(
    edits: Float[Tensor, "edits channels latent_height latent_width"],
    source: Float[Tensor, "1 channels latent_height latent_width"],
    free: Float[Tensor, "edits channels latent_height latent_width"],
    share: float = SHARE,
) -> Float[Tensor, " edits"]:
    """Return how far each edit has gone the free edit's way: (e - s).(f - s) / |f - s|^2, 0 at s and 1 at f.

    Over the places of the latents that are among the `share` which the free edit changes most.

    Args:
        edits, source, free: Final latents e, s and f; the free edit holds nothing of its source.
        share: Of all places, in (0, 1].
    """
    way, gone = (free - source).flatten(2), (edits - source).flatten(2)
    size = way.square().sum(1, keepdim=True)
    count = max(1, round(share * size.shape[-1]))
    where = size >= size.topk(count, dim=-1).values[..., -1:]
    return (gone * way * where).sum((1, 2)) / (way.square() * where).sum((1, 2)).clamp(min=1e-12)


def _checked(editor: Drawing, wishes: Wishes, together: bool) -> list[Edit]:
    if together:
        raise InputError('strength="auto" judges each edit by itself, and together=True makes one picture of them.')
    if isinstance(wishes, Conditioning):
        raise InputError('strength="auto" draws every edit at several strengths: give the prompts as text.')
    edits = list(as_edits(wishes))
    if any(edit.strength is not None for edit in edits):
        raise InputError(
            'An Edit brings a strength of its own, and strength="auto" looks for one. Leave one of them out.'
        )
    if len(edits) > 1 and not editor.strength_each:
        raise InputError(
            f'{editor.name} walks all edits of a call at one strength, and strength="auto" finds one for each. Give '
            f"one prompt a call; {len(edits)} were given."
        )
    return edits


def _warn(edits: Sequence[Edit], free: Tensor, source: Tensor) -> None:
    for edit, end, start in zip(edits, free.tolist(), source.tolist()):
        if end <= max(start, 0.0):
            warnings.warn(
                f"Even with nothing held, the model does not draw {edit.prompt!r} from this source so that it sees it "
                "there. Say more plainly what is new, or raise edit_guidance.",
                stacklevel=4,
            )


def _gathered(searches: Sequence[_Search], rounds: Sequence[EditResult], run: Run) -> EditResult:
    """The rows that were found, as one result whose recipe draws them again."""
    last = searches[0].result if len(searches) == 1 else rounds[-1]
    images, latents = (
        torch.cat([getattr(search.result, name)[search.row, None] for search in searches])
        for name in ("images", "latents")
    )
    found, made = [search.high for search in searches], [round(search.made, 4) for search in searches]
    recipe = last.recipe | {
        "auto": {"strength": found, "progress": made, "cut": CUT, "runs": len(rounds)},
        "nfe": last.recipe["nfe"] | {"edit": run.nfe["edit"] + sum(drawn.recipe["nfe"]["edit"] for drawn in rounds)},
        "seconds": round(sum(drawn.recipe["seconds"] for drawn in rounds), 3),
    }
    if len(searches) > 1:
        recipe["edit_strength"] = found
    return dataclasses.replace(last, images=images, latents=latents, recipe=recipe)
