"""Re-prompting: the source's noise drawn under the edit's prompt, and nothing held. What every method must beat."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from stableflow.editing.base import editor
from stableflow.editing.on_path import OnPath, shares_batch
from stableflow.editing.run import Run
from stableflow.errors import InputError
from stableflow.flow.schedule import Schedule, as_schedule
from stableflow.flow.time_grid import TimeGrid
from stableflow.models.base import Conditioning
from stableflow.types import Latents


@editor("reprompt", good_for="the baseline that every method must beat")
@dataclass(frozen=True)
class Reprompt(OnPath):
    """The source's own steps under the edit's prompt, from its noise or from its path.

    Args:
        strength: The flow time to start at, on the source's path; 1, its noise, when None. Above it the source's prompt
            has been at work, so this is a change of prompt at that time.
        words: How far the prompt is the edit's and not the source's, in [0, 1], by flow time: a number or a `Schedule`,
            such as "1:0,0.8:0,0.6:1". Between, the tensors of both are mixed.

    Source of `words`: timestep-aware sampling, arXiv:2402.08601, without its optimised text. Flows fix content early:
    a prompt that comes late changes little.
    """

    words: float | str | Schedule | Sequence[Sequence[float]] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        values = as_schedule(self.words, "words").values
        if not 0 <= min(values) <= max(values) <= 1:
            raise InputError(f"words must lie in [0, 1] at all times, got {self.words!r}.")

    def times(self, run: Run) -> TimeGrid:
        return run.source.grid if self.strength is None else run.source.grid.since(self.strength)

    def step(self, run: Run, z: Latents, t0: float, t1: float) -> Latents:
        if as_schedule(self.words) == Schedule.constant(1.0):
            return super().step(run, z, t0, t1)
        made, scales = run.source.fingerprint, run.scales(self.guidance(run))
        beside = [run.source.conditioning] if shares_batch(run) else []
        every = None if scales is None else [*(run.scale(made.guidance_scale) or 0.0 for _ in beside), *scales]

        def velocity(z: Latents, t: float) -> Latents:
            mixed = between(run.source.conditioning, run.edits, as_schedule(self.words)(t))
            return run.velocity(z, t, Conditioning.concat([*beside, mixed]), every)

        return run.advance(run.once("solver", lambda: self.solver(run)), velocity, z, t0, t1)


def between(source: Conditioning, edits: Conditioning, amount: float) -> Conditioning:
    """Return the edits' conditioning mixed with the source's: 0 is the source's, 1 the edits' own.

    Raises:
        InputError: The prompts' tensors differ in length, as with models that do not pad.
    """
    tensors = dict(edits.tensors)
    for name, own in edits.tensors.items():
        other = source.tensors[name]
        if other.shape[1:] != own.shape[1:]:
            raise InputError("Prompts have lengths of their own in this model and cannot be mixed: leave words at 1.")
        if own.is_floating_point():
            tensors[name] = torch.lerp(other.expand_as(own), own, amount)
    return Conditioning(edits.prompts, tensors)
