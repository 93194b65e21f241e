"""Moving, resizing, turning, copying and dragging things: the source is carried along, and the hole drawn anew."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from stableflow.checks import check_number
from stableflow.editing.base import editor
from stableflow.editing.carrying import Carrying
from stableflow.editing.holding import Holding
from stableflow.editing.making import Recording
from stableflow.editing.moves import Move, make_moves
from stableflow.editing.on_path import shares_batch
from stableflow.editing.policy import Hold, Policy
from stableflow.editing.presets import SpeedPreset, make_preset
from stableflow.editing.run import Run
from stableflow.editing.source import Source
from stableflow.flow.solvers import Solver
from stableflow.flow.time_grid import TimeGrid
from stableflow.interventions.blend import Blend
from stableflow.region import Region
from stableflow.types import Images, Latents

OUTSIDE = Policy((Hold("all", where="outside"),))  # latents are put back in `step`, more finely than whole tokens


@editor("move", good_for="things moved, resized, turned, copied or dragged, by pixels")
@dataclass(frozen=True)
class Moving(Holding):
    """Everything but the hole that things leave is the source's, carried to its new place; the hole is drawn anew.

    With c(i) the place that i is read from, K_i = K_src[c(i)] and V_i = V_src[c(i)] outside the hole, in all layers and
    at all times, and z_t = z_t^src[c] there after every step; inside nothing is held, and the first z_t is
    (1 - t) fill + t noise, with the hole filled smoothly from its border. Keys are met before they are turned to their
    position (RoPE), so that K_src[c(i)] turns itself to i. Where things move by no whole tokens, are resized, turned or
    bent, the source is the inverted collage, and c(i) = i.
    At the end the things' own pixels are pasted at their new places; outside, the result is the given picture.
    The prompt is what the hole shows: the source's own does, one that leaves the things out does better.

    Args:
        strength: Share of the way that things move: 0 leaves them where they are.
        moves: What goes where; later ones lie on top.
        way: "carry" gathers keys, values and path, "collage" inverts the collage; "auto" carries where it can.
        begin: Flow time from which the hole is drawn; 1 is from noise alone. The steps before are spared.
        pasted: The things' own pixels at their new places; else what the model draws there.
        preset: How the collage is inverted where the source itself was not: "exact", "balanced" or "fast".
        seed: Of the noise in the hole; when None it follows from the source.
    """

    moves: Sequence[Move | Mapping[str, Any]] = ()
    way: Literal["auto", "carry", "collage"] = "auto"
    begin: float = 0.5
    pasted: bool = True
    preset: str | SpeedPreset | Mapping[str, Any] = "balanced"
    seed: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "moves", make_moves(self.moves))
        object.__setattr__(self, "preset", make_preset(self.preset))
        check_number("begin", self.begin, 0, 1, above=True)

    def speed(self) -> SpeedPreset:
        return make_preset(self.preset)

    def recording(self) -> Recording:
        return Recording(tuple(range(len(self.model.layers))), precision=self.speed().kv_precision)

    def plan(self, run: Run) -> Policy:
        return OUTSIDE

    def acting(self, run: Run, region: Region | None) -> Region | None:
        return self.carrying(run).hole if region is None else region | self.carrying(run).hole

    def prepared(self, run: Run) -> Source:
        carrying = self.carrying(run)
        if carrying.way == "carry":
            return super().prepared(run)
        run.named = run.source
        return carrying.source(run, self.inverting(), self.recording())

    def times(self, run: Run) -> TimeGrid:
        return run.source.grid.since(self.begin)

    def start(self, run: Run) -> Latents:
        t, path = run.grid.times[0], run.source.path
        hole = (1 - t) * self.carrying(run).filling(run) + t * run.noise()
        z = torch.lerp(run.rows(self.held(run, t)), run.rows(hole), self.carrying(run).drawn(run))
        return torch.cat([path.at(t)[: int(shares_batch(run))], z])

    def step(self, run: Run, z: Latents, t0: float, t1: float) -> Latents:
        beside, z = super().step(run, z, t0, t1).tensor_split([int(shares_batch(run))])
        return torch.cat([beside, torch.lerp(self.held(run, t1).expand_as(z), z, self.carrying(run).drawn(run))])

    def held(self, run: Run, t: float) -> Latents:
        return self.carrying(run).latents(run.source.path.at(t))

    def solver(self, run: Run) -> Solver:
        return self.carrying(run).solver(
            super().solver(run), 1 - self.carrying(run).drawn(run), shared=shares_batch(run)
        )

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
        asked = list(make_moves(self.moves))
        return run.once("carrying", lambda: Carrying.of(run, asked, share=share, way=self.way))
