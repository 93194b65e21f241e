"""Progress and callbacks of a pipeline's call, as diffusers' users know them, told by the library's steps."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from stableflow.errors import InputError
from stableflow.flow.integrate import Callback, StepRecord
from stableflow.integrations.tensors import between_steps, pictures
from stableflow.models.model import DiffusersModel
from stableflow.models.times import TIMESTEPS


class Interrupted(Exception):
    """The caller set `pipeline._interrupt`; carries the step after which it did."""

    def __init__(self, record: StepRecord):
        super().__init__(f"interrupted after step {record.index + 1} of {record.num_steps}")
        self._latents = record.latents

    def output(self, model: DiffusersModel, rows: int, output_type: str) -> list[Any]:
        """Return the last rows as they stand, in the form that was asked for."""
        latents = self._latents[-rows:]
        if output_type == "latent":
            return list(between_steps(model, latents))
        return pictures(model.decode_latents(latents).cpu(), output_type)


class Steps:
    """Tells diffusers' progress bar and the caller's callback of steps.

    Args:
        pipeline: Whose bar and interrupt are asked.
        callback: Called as (pipeline, step, timestep, tensors).
        names: The tensors that it wants.

    Raises:
        InputError: A tensor was asked for that there is not.
    """

    def __init__(self, pipeline: Any, model: DiffusersModel, callback: Callable[..., Any] | None, names: Sequence[str]):
        names = getattr(callback, "tensor_inputs", names)  # diffusers' own callback objects say what they want
        if callback is not None and (wrong := [name for name in names if name != "latents"]):
            raise InputError(
                f"callback_on_step_end_tensor_inputs names {', '.join(map(str, wrong))}, and steps of an edit show "
                "latents only: prompts are encoded once for source and edits."
            )
        self._pipeline, self._model, self._callback, self._names = pipeline, model, callback, list(names)

    @contextmanager
    def bar(self, *, told: bool = False) -> Iterator[Callback]:
        """Open a bar over one run of steps, made when the first of them is done; `told` steps reach the callback."""
        bars: list[Any] = []

        def step(record: StepRecord) -> None:
            if not bars:
                bars.append(self._pipeline.progress_bar(total=record.num_steps))
            bars[0].update()
            if told and self._callback is not None:
                self._tell(record)
            if self._pipeline.interrupt:
                raise Interrupted(record)

        try:
            yield step
        finally:
            for bar in bars:
                bar.close()

    def _tell(self, record: StepRecord) -> None:
        assert self._callback is not None
        given: dict[str, Tensor] = {name: between_steps(self._model, record.latents) for name in self._names}
        timestep = torch.tensor(record.t0 * TIMESTEPS, dtype=torch.float32)
        returned = self._callback(self._pipeline, record.index, timestep, dict(given))
        for name, tensor in (returned or {}).items():
            if name in given and tensor is not given[name]:
                raise InputError(
                    f"The callback returned other {name} than it was given. Steps of an edit are held to their source, "
                    "so a callback sees them and cannot steer. Steer by strength, region, an intervention "
                    "(stableflow.attach), or a loop of your own around stableflow.inject."
                )
