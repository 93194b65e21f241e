"""KV-Edit: outside a region the source's keys and values in all layers, inside it everything is drawn again."""

from dataclasses import dataclass, field
from typing import ClassVar

from stableflow.checks import check_choice, check_number
from stableflow.editing.base import editor
from stableflow.editing.computing import COMPUTE, Compute
from stableflow.editing.holding import Holding
from stableflow.editing.making import Recording
from stableflow.editing.policy import POLICIES, Policy, dialled
from stableflow.editing.run import Run
from stableflow.flow.stochastic import turned
from stableflow.types import Latents


@editor("kv-edit", paper="arXiv:2502.17363", good_for="a thing put in, exchanged or taken away in a region")
@dataclass(frozen=True)
class KVEdit(Holding):
    """Tokens outside the region are the source's own, at every step and in every layer; those inside see them.

    A call without a region looks for "change". Memory: the image keys and values of all layers and steps, or one more
    row a pass where that does not fit; where it does, tokens outside are not computed (`compute`).

    Args:
        strength: Inside the region, too, keys and values are held, with weight (1 - strength)^2.
        fresh: Share of the noise inside the region that is new, in [0, 1]: 0 starts from the source's own, which
            remembers what stood there; 1 forgets it, for taking things away (the paper's reinitialisation).
        seed: Of the new noise; when None it follows from the source.
        compute: "region" computes the region's image tokens alone or is refused, "all" computes every token and
            overwrites those outside, "auto" the first wherever it is the same edit, to rounding, and pays.

    Source: Zhu et al., "KV-Edit: Training-Free Image Editing for Precise Background Preservation" (ICCV 2025),
    arXiv:2502.17363. Without its mask of attention from new noise to old.
    """

    fresh: float = 0.0
    seed: int | None = None
    compute: Compute = field(default="auto", kw_only=True)

    looks_for: ClassVar[str | None] = "change"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("fresh", self.fresh, 0, 1)
        check_choice("compute", self.compute, COMPUTE)

    def plan(self, run: Run) -> Policy:
        return POLICIES["region"] if self.strength is None else dialled(self.strength, within=True)

    def computes(self) -> Compute:
        return self.compute

    def recording(self) -> Recording:
        return Recording(tuple(range(len(self.model.layers))))

    def start(self, run: Run) -> Latents:
        z = super().start(run)
        if self.fresh == 0.0:
            return z
        new = turned(z[-1:], run.noise(), self.fresh)
        z = z.clone()
        z[-len(run.edits) :] = z[-1:] + run.free * (new - z[-1:])
        return z
