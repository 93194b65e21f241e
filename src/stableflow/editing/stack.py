"""A stack of brush strokes over a picture: hidden, re-ordered and re-seeded, with only what changed drawn again."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from stableflow.checks import check_count, check_flag, check_number, check_seed, check_text
from stableflow.editing.fingerprint import ENCODED
from stableflow.editing.methods.brushes import Brushes
from stableflow.editing.path import Path
from stableflow.editing.result import EditResult
from stableflow.editing.source import Source
from stableflow.editing.where import Where
from stableflow.errors import InputError
from stableflow.flow.integrate import Callback, StepRecord
from stableflow.flow.trajectory import Trajectory


@dataclass(frozen=True)
class Stroke:
    """One layer.

    Args:
        prompt: What its region shows.
        region: Where it acts; the outside is left to the last bit.
        seed: Of its new noise: another seed is another stroke.
        strength: The flow time that it begins at, in (0, 1]; only the steps below are drawn.
        amount: Share of the noise that is new.
        hidden: Left out for now.
    """

    prompt: str
    region: Where
    seed: int = 0
    strength: float = 0.8
    amount: float = 0.5
    hidden: bool = False

    def __post_init__(self) -> None:
        check_text("prompt", self.prompt, empty=False)
        check_seed("seed", self.seed)
        check_number("strength", self.strength, 0, 1, above=True)
        check_number("amount", self.amount, 0, 1)
        check_flag("hidden", self.hidden)


@dataclass(frozen=True, eq=False)
class Stack:
    """Strokes over a source, the first of them lowest; each goes on from the path that the one below it took.

    Args:
        editor: Draws the strokes.
        source: With its path.
        most: Pictures of strokes over strokes that are kept, each with its path; those unused for longest go first.

    Example:
        >>> brushes = Brushes(load("tiny"))
        >>> stack = Stack(brushes, brushes.generate("a dog standing on the grass", seed=1, num_steps=6))
        >>> snow = Stroke("a dog standing in the snow", "box:0,40,64,24")
        >>> hat = Stroke("a dog wearing a hat", "box:20,8,20,16", seed=3)
        >>> first = stack.draw([snow, hat])
        >>> again = stack.draw([snow, replace(hat, seed=4)])  # the snow is not drawn again

    Source: Gholami and Xiao, "Streamlining Image Editing with Layered Diffusion Brushes" (ICCV 2025), arXiv:2405.00313.
    """

    editor: Brushes
    source: Source
    most: int = 32
    _drawn: dict[tuple[Stroke, ...], tuple[Source, EditResult]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        check_count("most", self.most)
        if self.source.fingerprint.inversion == ENCODED:
            raise InputError("The source has no path: make it with the generate or invert of brushes or stable-flow.")

    def kept(self, strokes: Sequence[Stroke]) -> int:
        """Return how many of the strokes that are not hidden, from the lowest, `draw` need not draw again."""
        shown = _shown(strokes)
        return max((depth for depth in range(1, len(shown) + 1) if shown[:depth] in self._drawn), default=0)

    def draw(self, strokes: Sequence[Stroke], *, callback: Callback | None = None) -> EditResult:
        """Return the picture under all strokes that are not hidden.

        Its recipe tells of every stroke, and its region is where any of them shows.

        Args:
            callback: Told of every step that is drawn; what it raises ends the drawing, and finished strokes are kept.

        Raises:
            InputError: There is none, or a region does not fit.
        """
        shown = _shown(strokes)
        if not shown:
            raise InputError("Every stroke is hidden or there is none; the picture is source.images then.")
        below: tuple[Source, EditResult | None] = self.source, None
        kept = self.kept(shown)
        for depth in range(1, kept + 1):
            if (found := self._drawn.pop(shown[:depth], None)) is not None:
                below = self._drawn[shown[:depth]] = found
        for depth in range(kept + 1, len(shown) + 1):
            below = self._drawn[shown[:depth]] = self._over(*below, shown[depth - 1], callback)
        while len(self._drawn) > max(self.most, len(shown)):
            del self._drawn[next(iter(self._drawn))]
        assert below[1] is not None
        return below[1]

    def _over(
        self, below: Source, lower: EditResult | None, stroke: Stroke, callback: Callback | None
    ) -> tuple[Source, EditResult]:
        """Draw one stroke; returns what it leaves as the source of the next, and the picture so far."""
        states = Trajectory({t: below.path.at(t) for t in below.grid.times})

        def keep(record: StepRecord) -> None:
            if record.index == 0:
                states.put(record.t0, record.previous)
            states.put(record.t1, record.latents)
            if callback is not None:
                callback(record)

        how = {"seed": stroke.seed, "begin": stroke.strength, "amount": stroke.amount, "strength": None}
        result = self.editor.edit(below, stroke.prompt, region=stroke.region, callback=keep, **how)
        under = replace(below, path=Path(states, below.path.offsets), images=result.images, kept={})
        under = replace(under, given=None if below.given is None else result.images)
        return under, self._whole(lower, result, stroke)

    def _whole(self, lower: EditResult | None, top: EditResult, stroke: Stroke) -> EditResult:
        """The result of a stroke as one of the whole stack: from the source itself, by all strokes so far."""
        region, strokes = top.region, [_as_json(stroke, top)]
        if lower is not None:
            region = None if region is None or lower.region is None else lower.region | region
            strokes = [*lower.recipe["strokes"], *strokes]
        return replace(top, source=self.source, region=region, recipe=top.recipe | {"strokes": strokes})


def _shown(strokes: Sequence[Stroke]) -> tuple[Stroke, ...]:
    return tuple(stroke for stroke in strokes if not stroke.hidden)


def _as_json(stroke: Stroke, drawn: EditResult) -> dict[str, Any]:
    """A stroke as its recipe tells of it: a region of a file or an object by its amounts."""
    named = isinstance(stroke.region, str) and not stroke.region.removeprefix("~").startswith("mask:")
    return {
        "prompt": stroke.prompt,
        "region": stroke.region if named else drawn.recipe["region"],
        "seed": stroke.seed,
        "strength": stroke.strength,
        "amount": stroke.amount,
        "nfe": drawn.recipe["nfe"],
    }
