"""Direct inversion: the source's branch never leaves its inverted path, while the edits move freely beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from stableflow.editing.base import editor
from stableflow.editing.holding import Holding
from stableflow.editing.making import Recording
from stableflow.editing.on_path import OnPath
from stableflow.editing.policy import Hold, Policy, dialled, make_policy
from stableflow.editing.presets import SpeedPreset
from stableflow.editing.run import Run
from stableflow.editing.source import Source
from stableflow.flow.schedule import ALWAYS
from stableflow.types import Latents
from stableflow.vital.presets import VITAL, resolve_layers


@editor("direct-inversion", paper="arXiv:2310.01506", good_for="any control of attention over an exact source")
@dataclass(frozen=True)
class DirectInversion(Holding):
    """Row 0 is the source; after each Euler step it is put back on its path, so that errors do not add up in it.

    What edits read of the source (`policy`) is then what it is on the path. The edits start at its noise and are not
    corrected.

    Args:
        strength: Keys and values of all layers are held with weight (1 - strength)^2, instead of `policy`.
        layers: Where keys and values are held: "vital", "all" or layer numbers.
        policy: What is held, instead: a name in `POLICIES`, or a `Policy`.

    Source: Ju et al., "Direct Inversion: Boosting Diffusion-based Editing with 3 Lines of Code" (PnP Inversion, ICLR
    2024), arXiv:2310.01506. `StableFlow` corrects source and edits alike instead ("aligned").
    """

    layers: str | Sequence[int] = VITAL
    policy: str | Policy | Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        resolve_layers(self.model, self.layers)
        if self.policy is not None:
            object.__setattr__(self, "policy", make_policy(self.policy))

    def plan(self, run: Run) -> Policy:
        if self.policy is not None:
            return make_policy(self.policy)
        if self.strength is not None:
            return dialled(self.strength, within=run.region is not None)
        return Policy((Hold(resolve_layers(self.model, self.layers)),), pin=ALWAYS)

    def prepared(self, run: Run) -> Source:
        source = OnPath.prepared(self, run)
        return replace(source, path=replace(source.path, store=None))  # it runs beside its edits, whoever made it

    def step(self, run: Run, z: Latents, t0: float, t1: float) -> Latents:
        velocity = run.of_both(run.source.fingerprint.guidance_scale, self.guidance(run))
        moved = z + (t1 - t0) * velocity(z, t0)
        return torch.cat([run.source.path.at(t1), moved[1:]])

    def recording(self) -> Recording:
        return Recording(memory="share")

    def speed(self) -> SpeedPreset:
        return SpeedPreset("direct", solver={"name": "euler"}, inversion="paper")
