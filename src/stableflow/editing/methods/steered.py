"""SteerFlow's step on a session's own path, drawn or inverted, alone or on top of injected keys and values."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from stableflow.checks import check_number
from stableflow.editing.base import editor
from stableflow.editing.holding import Holding
from stableflow.editing.making import Recording
from stableflow.editing.memory import KVMemory
from stableflow.editing.methods.steerflow import changing
from stableflow.editing.policy import Hold, Policy
from stableflow.editing.run import Run
from stableflow.flow.schedule import ALWAYS, NEVER
from stableflow.types import Latents
from stableflow.vital.presets import resolve_layers


@editor("steered", paper="arXiv:2604.01715", good_for="steering on a session's own path, with or without injection")
@dataclass(frozen=True, kw_only=True)
class Steered(Holding):
    """v = v_src + m w (v_edit - v_src), with v_src = (z_{t1} - z_{t0}) / (t1 - t0) from the source's own path.

    w = strength (1 - t1^alpha) cos(v_edit, v_src); m is near 1 where the velocities differ most: `changing`.

    Args:
        strength: Factor on w; 1, the method's own, when None.
        alpha: How soon the edit leaves the source: larger is sooner.
        masked: Whether m acts; 1 everywhere if not.
        layers: Where the source's keys and values are injected besides; none by default.
        kv_memory: What becomes of these, as in `StableFlow`.

    Source: SteerFlow, arXiv:2604.01715, its step from a stored path; `steerflow` inverts one of its own, as published.
    Where the path was inverted with offsets, the edit's velocity is evaluated where the inversion evaluated it.
    """

    alpha: float = 4.5
    masked: bool = True
    layers: str | Sequence[int] = ()
    kv_memory: KVMemory = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("alpha", self.alpha, 0, 1000, above=True)
        object.__setattr__(self, "layers", resolve_layers(self.model, self.layers))

    def recording(self) -> Recording:
        return Recording(resolve_layers(self.model, self.layers), self.kv_memory)

    def plan(self, run: Run) -> Policy:
        held = (Hold(resolve_layers(self.model, self.layers)),) if self.layers else ()
        return Policy(held, NEVER if run.region is None else ALWAYS)

    def step(self, run: Run, z: Latents, t0: float, t1: float) -> Latents:
        path, velocity = run.source.path, run.once("velocities", lambda: self.velocities(run))
        source = (path.at(t1) - path.at(t0)) / (t1 - t0)
        ahead = velocity(z + path.offsets.get(t0, 0.0), t0) - source
        along = torch.cosine_similarity(source + ahead, source.expand_as(ahead), dim=1).mean((1, 2))[
            :, None, None, None
        ]
        amount = (1.0 if self.strength is None else self.strength) * (1 - t1**self.alpha) * along
        where = changing(ahead) if self.masked else 1.0
        return z + (t1 - t0) * (source + where * amount * ahead)
