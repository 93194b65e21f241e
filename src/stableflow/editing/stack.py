"""A stack of brush strokes over a picture: hidden, re-ordered and re-seeded, with only what changed drawn again."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from stableflow.checks import check_flag, check_number, check_seed, check_text
from stableflow.editing.fingerprint import ENCODED
from stableflow.editing.methods.brushes import Brushes
from stableflow.editing.path import Path
from stableflow.editing.result import EditResult
from stableflow.editing.source import Source
from stableflow.editing.where import Where
from stableflow.errors import InputError
from stableflow.flow.integrate import StepRecord
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
    _drawn: dict[tuple[Stroke, ...], tuple[Source, EditResult]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.source.fingerprint.inversion == ENCODED:
            raise InputError("The source has no path: make it with the generate or invert of brushes or stable-flow.")

    def draw(self, strokes: Sequence[Stroke]) -> EditResult:
        """Return the picture under all strokes that are not hidden.

        Raises:
            InputError: There is none, or a region does not fit.
        """
        shown = tuple(stroke for stroke in strokes if not stroke.hidden)
        if not shown:
            raise InputError("Every stroke is hidden or there is none; the picture is source.images then.")
        below, result = self.source, None
        for depth in range(1, len(shown) + 1):
            if shown[:depth] not in self._drawn:
                self._drawn[shown[:depth]] = self._over(below, shown[depth - 1])
            below, result = self._drawn[shown[:depth]]
        assert result is not None
        return result

    def _over(self, below: Source, stroke: Stroke) -> tuple[Source, EditResult]:
        """Draw one stroke; returns what it leaves as the source of the next, and its result."""
        states = Trajectory({t: below.path.at(t) for t in below.grid.times})

        def keep(record: StepRecord) -> None:
            if record.index == 0:
                states.put(record.t0, record.previous)
            states.put(record.t1, record.latents)

        how = {"seed": stroke.seed, "begin": stroke.strength, "amount": stroke.amount, "strength": None}
        result = self.editor.edit(below, stroke.prompt, region=stroke.region, callback=keep, **how)
        under = replace(below, path=Path(states, below.path.offsets), images=result.images, kept={})
        return replace(under, given=None if below.given is None else result.images), result
