"""For those who have a loop of their own: interventions and injection around a diffusers pipeline's own calls."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stableflow.editing.making import Recording, record_again
from stableflow.editing.passes import require_same_model
from stableflow.editing.source import Source
from stableflow.errors import InputError
from stableflow.integrations.tensors import as_argument
from stableflow.interventions import InjectKV
from stableflow.interventions.blend import Blend
from stableflow.models.base import FlowModel, Intervention
from stableflow.models.families import wrap
from stableflow.models.model import DiffusersModel
from stableflow.vital.presets import VITAL, resolve_layers


@dataclass(frozen=True, eq=False)
class Injecting:
    """What a pipeline's own call needs in order to retrace a source under another prompt.

    Args:
        latents: The source's noise as the pipeline takes it: packed where the pipeline packs.
        num_inference_steps: As many steps as the source has.
        height, width: In pixels.
        layers: What is injected in.
    """

    latents: Tensor
    num_inference_steps: int
    height: int
    width: int
    layers: tuple[int, ...]


@contextmanager
def attach(model: Any, *interventions: Intervention, times: Sequence[float] = ()) -> Iterator[FlowModel]:
    """Open a block in which interventions act, on all that the model does and on the pipeline's own calls.

    The model is left exactly as it was found, also when the block raises.

    Args:
        model: From `load` or `wrap`, or a diffusers pipeline of a family that is known.
        interventions: Such as `Capture`, `Patch`, `Ablate`, `Bypass`, `RecordKV` or one's own; in this order.
        times: Flow times that the pipeline's own passes may have; a rounded one is taken for the nearest.

    Yields:
        The model: `model.velocity`, `model.layers`, `model.words` and the rest.

    Raises:
        InterventionError: Something routes passes around the layers, such as a step cache.

    Example:
        >>> seen = Capture([3])
        >>> with attach(load("tiny"), seen) as model:
        ...     source = StableFlow(model).generate("a red dog standing on the grass at noon", seed=1)
        >>> seen.at(3, 1.0).shape
        torch.Size([1, 64, 192])
    """
    wrapped = model if isinstance(model, FlowModel) else wrap(model)
    with wrapped.attach(*interventions):
        if isinstance(wrapped, DiffusersModel) and wrapped.family.call is not None and _one_branch(wrapped):
            with wrapped.following(times):
                yield wrapped
        else:
            yield wrapped


@contextmanager
def inject(
    pipe: Any, *, source: Source, layers: str | Sequence[int] = VITAL, blend: Blend | None = None
) -> Iterator[Injecting]:
    """Open a block in which a pipeline's own calls read a source's keys and values in chosen layers.

    For people who have their own loop or script: everything else is diffusers'. Started from the source's noise, a
    call draws what `StableFlow.edit` draws, to the last bit, for sources that were drawn, and for pictures inverted
    with inversion="paper"; under aligned inversion a pipeline's Euler steps lack the recorded offsets.

    Args:
        pipe: A diffusers pipeline, or a model from `load` or `wrap`; its own prompt, guidance and callbacks hold.
        source: From `generate`, `invert` or `Source.load`, of the same checkpoint.
        layers: "vital", "all", or layer numbers in execution order.
        blend: Weight and place, over flow time; replaced fully, everywhere, when None.

    Yields:
        What to start the pipeline from.

    Raises:
        FingerprintError: The source belongs to another checkpoint or dtype.
        InputError: No vital layers are known, or the source has no path.
        InterventionError: This pipeline's own calls cannot be followed, or a pass was at none of the source's times.

    Example:
        >>> with inject(pipe, source=source) as start:
        ...     images = pipe("a dog sitting", latents=start.latents, num_inference_steps=15).images
    """
    model = pipe if isinstance(pipe, DiffusersModel) else wrap(pipe)
    require_same_model(model, source)
    made, chosen = source.fingerprint, resolve_layers(model, layers)
    if len(made.times) < 2:
        raise InputError(
            "This source was only encoded, so it has no path to inject from. Make it with StableFlow(model).invert "
            "or generate."
        )
    store = _recorded(model, source, chosen)
    start = Injecting(as_argument(model, source.noise), len(made.times) - 1, made.height, made.width, chosen)
    injected = InjectKV(chosen, store, blend or Blend())
    with torch.no_grad(), model.attach(injected), model.following(made.times[:-1]), store.prefetching(model.device):
        yield start


def _recorded(model: DiffusersModel, source: Source, layers: tuple[int, ...]) -> Any:
    """The source's keys and values in these layers, recorded once for a source."""
    if source.store is not None and set(layers) <= set(source.store.layers):
        return source.store
    recording = Recording(layers, "device")
    with torch.no_grad():
        path, _ = source.keep(("recorded", recording), lambda: record_again(model, source, recording))
    return path.store


def _one_branch(model: DiffusersModel) -> bool:
    return not model.family.guidance(model.pipeline).classifier_free
