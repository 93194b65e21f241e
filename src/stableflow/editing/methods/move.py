"""Moving, resizing, turning, copying and dragging things: the source is carried along, and the hole drawn anew."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from stableflow.checks import check_number
from stableflow.editing.base import Editor, editor
from stableflow.editing.carrying import Carrying
from stableflow.editing.holding import Holding
from stableflow.editing.making import Recording
from stableflow.editing.moves import Move, make_move
from stableflow.editing.on_path import shares_batch
from stableflow.editing.policy import Hold, Policy
from stableflow.editing.presets import SpeedPreset, make_preset
from stableflow.editing.result import EditResult
from stableflow.editing.run import Run
from stableflow.editing.source import Source
from stableflow.flow.solvers import Solver
from stableflow.flow.stochastic import turned
from stableflow.interventions.blend import Blend
from stableflow.region import Region
from stableflow.types import Images, Latents

OUTSIDE = Policy((Hold("all", where="outside"),))  # latents are put back in `step`, more finely than whole tokens


@editor("move", good_for="things moved, resized, turned, copied or dragged, by pixels")
@dataclass(frozen=True)
class Moving(Holding):
    """Everything but the hole that things leave is the source's, carried to its new place; the hole is drawn anew.

    With c(i) the token that i is read from, in all layers and at all times K_i = K_src[c(i)], V_i = V_src[c(i)] outside
    the hole, z_t = z_t^src[c] there after every step, and fresh noise, nothing held, inside. Keys are met before they
    are turned to their position (RoPE), so that K_src[c(i)] is turned to i by itself. Where things move by no whole
    tokens, are resized, turned or bent, the source is the inverted collage instead, and c(i) = i.
    At the end the things' own pixels are pasted at their new places, and outside the result is the given picture.

    Args:
        strength: Share of the way that things move: 0 leaves them where they are.
        moves: What goes where; later ones lie on top.
        way: "carry" gathers keys, values and path, "collage" inverts the collage; "auto" carries where it can.
        fresh: Share of the hole's noise that is new, in [0, 1]; the old one remembers what stood there.
        pasted: The things' own pixels at their new places; else what the model draws there.
        preset: How the collage is inverted where the source itself was not: "exact", "balanced" or "fast".
        seed: Of the fresh noise; when None it follows from the source.
    """

    moves: Sequence[Move | Mapping[str, Any]] = ()
    way: Literal["auto", "carry", "collage"] = "auto"
    fresh: float = 1.0
    pasted: bool = True
    preset: str | SpeedPreset | Mapping[str, Any] = "balanced"
    seed: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "moves", tuple(make_move(move) for move in self.moves))
        object.__setattr__(self, "preset", make_preset(self.preset))
        check_number("fresh", self.fresh, 0, 1)

    def speed(self) -> SpeedPreset:
        return make_preset(self.preset)

    def recording(self) -> Recording:
        return Recording(tuple(range(len(self.model.layers))), precision=self.speed().kv_precision)

    def plan(self, run: Run) -> Policy:
        return OUTSIDE

    def acting(self, run: Run, region: Region | None) -> Region | None:
        hole = self.carrying(run).hole
        return hole if region is None else Region((region.amount > 0).float()) | hole

    def prepared(self, run: Run) -> Source:
        carrying = self.carrying(run)
        if carrying.way == "carry":
            return super().prepared(run)
        run.named = run.source
        return carrying.source(run, self.inverting(), self.recording())

    def start(self, run: Run) -> Latents:
        beside, z = super().start(run).tensor_split([int(shares_batch(run))])
        z = self.carrying(run).latents(z)
        return torch.cat([beside, torch.lerp(z, turned(z, run.noise(), self.fresh), self.free(run).expand_as(z))])

    def step(self, run: Run, z: Latents, t0: float, t1: float) -> Latents:
        beside, z = super().step(run, z, t0, t1).tensor_split([int(shares_batch(run))])
        return torch.cat([beside, torch.lerp(self.held(run, t1).expand_as(z), z, self.free(run))])

    def held(self, run: Run, t: float) -> Latents:
        return self.carrying(run).latents(run.source.path.at(t))

    def free(self, run: Run) -> Float[Tensor, "1 1 latent_height latent_width"]:
        """Return 1 at latents that are drawn anew, 0 at those that follow the source."""
        own = self.carrying(run).free
        return own if run.asked is None else torch.maximum(own, run.free[:1])

    def solver(self, run: Run) -> Solver:
        kept = 1 - self.fresh * self.free(run)
        return self.carrying(run).solver(super().solver(run), kept, shared=shares_batch(run))

    def blend(self, run: Run, hold: Hold) -> Blend:
        return replace(super().blend(run, hold), reads=self.carrying(run).tokens)

    def shown(self, run: Run, images: Images) -> tuple[Images, Region]:
        return self.carrying(run).shown(run.named or run.source, images, run.asked, pasted=self.pasted)

    def notes(self, run: Run) -> dict[str, Any]:
        carrying = self.carrying(run)
        found = [move.as_json() for move in carrying.asked]
        return {"editor": {"name": self.name, **self.settings(), "moves": found}, "way": carrying.way}

    def carrying(self, run: Run) -> Carrying:
        """Return what is where after the moves."""
        share = 1.0 if self.strength is None else self.strength
        moves = [make_move(move) for move in self.moves]
        return run.once("carrying", lambda: Carrying.of(run, moves, share=share, way=self.way))


def move(source_editor: Editor, source: Source, *moves: Move, prompt: str | None = None, **settings: Any) -> EditResult:
    """Move things in a source's picture.

    Args:
        source_editor: Any editor over the model that made the source.
        source: From `generate`, `invert` or `Source.load`.
        moves: What goes where, in pixels of the source's picture.
        prompt: What the result shows; the source's prompt when None.
        settings: Of `Moving`, and `region=`, `exact=` and `callback=` of `Editor.edit`.

    Example:
        >>> editor = StableFlow(load("tiny"))
        >>> source = editor.generate("a red dog standing on the grass", seed=1)
        >>> move(editor, source, Move("word:dog", dx=16)).images.shape
        torch.Size([1, 3, 64, 64])
    """
    shown = source.conditioning.prompts[0] if prompt is None else prompt
    return Moving(source_editor.model).edit(source, shown, moves=moves, **settings)
