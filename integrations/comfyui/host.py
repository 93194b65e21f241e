"""The one place that calls ComfyUI: its samplers, schedules, clones and previews, by their public names."""

from collections.abc import Callable, Sequence
from typing import Any

import comfy.patcher_extension
import comfy.sample
import comfy.samplers
import latent_preview
import torch
from torch import Tensor

from .engine.injection import Injection
from .engine.layers import Numbering
from .engine.recording import Recorder

WRAPPERS = comfy.patcher_extension.WrappersMP
SAMPLERS: Sequence[str] = comfy.samplers.KSampler.SAMPLERS
SCHEDULERS: Sequence[str] = comfy.samplers.KSampler.SCHEDULERS


def numbering_of(model: Any) -> Numbering:
    """Return how the layers of a MODEL are counted."""
    return Numbering.of(model.get_model_object("diffusion_model"))


def patch_of(model: Any) -> int:
    """Return the side of an image token in latents."""
    return int(getattr(model.get_model_object("diffusion_model"), "patch_size", 2))


def side_of(model: Any) -> int:
    """Return the side of an image token in pixels."""
    return patch_of(model) * int(getattr(model.get_model_object("latent_format"), "spacial_downscale_ratio", 8))


def in_pixels(model: Any, tokens: Tensor) -> Tensor:
    """Return a map of tokens as a MASK of the picture's size."""
    return tokens.repeat_interleave(side_of(model), -2).repeat_interleave(side_of(model), -1)


def sigmas_of(model: Any, scheduler: str, steps: int) -> Tensor:
    """Return the times of a schedule, from noise to picture."""
    return comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), scheduler, steps).cpu()


def listened(model: Any, recorder: Recorder, *, both: bool) -> Any:
    """Return a clone of a MODEL to whose runs the recorder listens.

    Args:
        both: Both branches of guidance run, also where the scale makes one of them superfluous.
    """
    clone = model.clone()
    clone.add_wrapper_with_key(WRAPPERS.PREDICT_NOISE, recorder.key, recorder.predict)
    clone.add_wrapper_with_key(WRAPPERS.APPLY_MODEL, recorder.key, recorder.apply)
    if recorder.store is not None:
        clone.set_model_attn1_patch(recorder.attend)
    if both:
        clone.model_options["disable_cfg1_optimization"] = True
    return clone


def injected(model: Any, injection: Injection) -> Any:
    """Return a clone of a MODEL whose runs are edits; the model itself stays as it is."""
    clone = model.clone()
    clone.add_wrapper_with_key(WRAPPERS.SAMPLER_SAMPLE, injection.key, injection.sample)
    clone.add_wrapper_with_key(WRAPPERS.PREDICT_NOISE, injection.key, injection.predict)
    clone.add_wrapper_with_key(WRAPPERS.APPLY_MODEL, injection.key, injection.apply)
    clone.set_model_attn1_patch(injection.attend)
    return clone


def bypassed(model: Any, block: tuple[str, int]) -> Any:
    """Return a clone of a MODEL with one block that hands on its streams unchanged."""
    clone, (kind, number) = model.clone(), block
    streams = ("img", "txt") if kind == "double" else ("img",)
    clone.set_model_patch_replace(
        lambda given, original: {stream: given[stream] for stream in streams}, "dit", f"{kind}_block", number
    )
    return clone


def empty_like_model(model: Any, latent: dict[str, Any]) -> Tensor:
    """Return a latent's samples in the channels of the model, as ComfyUI's samplers do."""
    return comfy.sample.fix_empty_latent_channels(model, latent["samples"], latent.get("downscale_ratio_spacial"))


def noise_for(samples: Tensor, seed: int) -> Tensor:
    """Return ComfyUI's noise of a seed."""
    return comfy.sample.prepare_noise(samples, seed)


@torch.no_grad()
def run(
    model: Any,
    sampler: str | Callable[..., Tensor],
    sigmas: Tensor,
    positive: Any,
    negative: Any,
    cfg: float,
    *,
    noise: Tensor,
    latent: Tensor,
    seed: int = 0,
) -> Tensor:
    """Run a sampler by its name, or one of ours, from this noise; returns samples as ComfyUI's LATENT has them.

    The sampler gets times of its own: uni_pc writes into those that it is given.
    """
    chosen = comfy.samplers.sampler_object(sampler) if isinstance(sampler, str) else comfy.samplers.KSAMPLER(sampler)
    told = latent_preview.prepare_callback(model, max(1, len(sigmas) - 1))
    return comfy.sample.sample_custom(
        model, noise, cfg, chosen, sigmas.clone(), positive, negative, latent, seed=seed,
        callback=told, disable_pbar=True,
    )  # fmt: skip


def into_model(model: Any, samples: Tensor) -> Tensor:
    """Return a LATENT's samples in the model's own scale."""
    return model.get_model_object("latent_format").process_in(samples.float())


def velocity(model: Any, positive: Any, z: Tensor, t: float) -> Tensor:
    """Return v = noise - picture of a flow model for one row, at one time."""
    answers: list[Tensor] = []

    def ask(asked: Any, x: Tensor, sigmas: Tensor, extra_args: Any = None, callback: Any = None, disable: Any = None):
        answers.append((z - asked(z.to(x), x.new_full((len(z),), t), **(extra_args or {}))).cpu() / t)
        return x

    run(
        model,
        ask,
        torch.tensor([t, 0.0]),
        positive,
        positive,
        1.0,
        noise=torch.zeros_like(z),
        latent=torch.zeros_like(z),
    )
    return answers[0]
