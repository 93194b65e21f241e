"""Drawing pictures with a layer bypassed, and comparing them with the reference."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stableflow.errors import NumericsError
from stableflow.flow.integrate import integrate
from stableflow.flow.solvers import Euler
from stableflow.interventions import Bypass
from stableflow.interventions.blend import WHOLE_FLOW
from stableflow.jobs.cells import Record
from stableflow.models.base import FlowModel
from stableflow.types import Latents
from stableflow.vital.protocol import Protocol
from stableflow.vital.similarity import Drawn, Similarity

LEAST_TOKENS = 64  # image tokens under which scaling does not go
NOISE = 0.7  # roughness from which latents count as noise; white noise has 1
DESTROYED = 0.0  # similarity of a picture that is not finite to any other


@dataclass(frozen=True)
class Bypassed:
    """One layer bypassed, on some prompts (by number), in a window of flow times."""

    layer: int
    prompts: tuple[int, ...]
    t_window: tuple[float, float] = WHOLE_FLOW

    @property
    def keys(self) -> tuple[str, ...]:
        window = "" if self.t_window == WHOLE_FLOW else ".t-{:.4f}-{:.4f}".format(*self.t_window)
        return tuple(f"prompt-{prompt:04d}.layer-{self.layer:03d}{window}" for prompt in self.prompts)


class Measurer:
    """Draws references and bypassed pictures and compares them; references of the last prompts are kept at hand."""

    def __init__(
        self, model: FlowModel, prompts: Sequence[str], protocol: Protocol, similarities: Sequence[Similarity]
    ):
        self.model, self.prompts, self.protocol, self.similarities = model, prompts, protocol, similarities
        self._kept: tuple[tuple[int, ...], Drawn] | None = None

    def __call__(self, work: Bypassed) -> Mapping[str, Record]:
        """Return how similar the pictures are, and what is wrong with them, for each key of the work."""
        reference = self._reference(work.prompts)
        try:
            bypassed = self.draw(work.prompts, (work.layer,), work.t_window)
        except NumericsError:
            return self._one_by_one(work)
        values = {s.name: s.compare(bypassed, reference).tolist() for s in self.similarities}
        rough = roughness(bypassed.latents).tolist()
        return {
            key: {
                "similarity": {name: row[i] for name, row in values.items()},
                "flag": "noise" if rough[i] > NOISE else "",
            }
            for i, key in enumerate(work.keys)
        }

    def draw(self, numbers: Sequence[int], bypassed: Sequence[int], t_window: tuple[float, float]) -> Drawn:
        """Draw prompts by number with some layers bypassed."""
        model, protocol = self.model, self.protocol
        height, width = measured_size(model, protocol)
        shape = model.latent_shape(height, width)
        seeds = [protocol.first_seed + number for number in numbers]
        noise = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
        conditioning = model.encode_prompt([self.prompts[number] for number in numbers])

        def velocity(latents: Tensor, t: float) -> Tensor:
            return model.velocity(latents, t, conditioning, guidance_scale=guidance_of(model, protocol))

        with model.attach(Bypass(bypassed, t_window)):
            latents = integrate(
                velocity, noise.to(model.device), model.time_grid(protocol.num_steps, height, width), Euler()
            )
        return Drawn(latents.cpu(), model.decode_latents(latents).cpu())

    def _reference(self, numbers: tuple[int, ...]) -> Drawn:
        if self._kept is None or self._kept[0] != numbers:
            self._kept = numbers, self.draw(numbers, (), WHOLE_FLOW)
        return self._kept[1]

    def _one_by_one(self, work: Bypassed) -> Mapping[str, Record]:
        """Of a batch that is not finite, find out which rows are."""
        if len(work.prompts) == 1:
            similarity = dict.fromkeys((s.name for s in self.similarities), DESTROYED)
            return {work.keys[0]: {"similarity": similarity, "flag": "not finite"}}
        records: dict[str, Record] = {}
        for prompt in work.prompts:
            records |= self(dataclasses.replace(work, prompts=(prompt,)))
        return records


def roughness(latents: Latents) -> Tensor:
    """Return the mean squared difference of neighbours over twice the variance, by row: 1 for noise, 0 for smooth.

    Source: von Neumann, "Distribution of the ratio of the mean square successive difference to the variance" (1941).
    """
    across, down = latents.diff(dim=-1).square().mean((1, 2, 3)), latents.diff(dim=-2).square().mean((1, 2, 3))
    return (across + down) / (4 * latents.var((1, 2, 3)).clamp(min=1e-12))


def measured_size(model: FlowModel, protocol: Protocol) -> tuple[int, int]:
    """Return height and width in pixels: the model's own, scaled, as multiples of what it can run.

    A picture keeps at least LEAST_TOKENS image tokens, or all it has: smaller ones no longer show what layers do.
    """
    multiple, (own_height, own_width) = model.pixel_multiple, model.default_size
    least = (LEAST_TOKENS * multiple**2 / (own_height * own_width)) ** 0.5
    scale = max(protocol.scale, min(1.0, least))
    height, width = (max(multiple, round(side * scale / multiple) * multiple) for side in (own_height, own_width))
    return height, width


def guidance_of(model: FlowModel, protocol: Protocol) -> float | None:
    """Return the protocol's guidance, or the model's usual one."""
    return model.default_guidance_scale if protocol.guidance_scale is None else protocol.guidance_scale
