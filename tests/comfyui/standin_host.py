"""What the pack uses of ComfyUI's samplers and model patcher, for machines without ComfyUI.

Written from the documented interface, over diffusers' transformer: attention patches get q, k, v of text and image
after QK norm and before RoPE. The suite passes against ComfyUI itself as well (COMFYUI=FOLDER); this keeps its terms.
"""

import copy
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from standin_flux import StandinFlux
from torch import Tensor

WRAPPERS = SimpleNamespace(SAMPLER_SAMPLE="sampler_sample", PREDICT_NOISE="predict_noise", APPLY_MODEL="apply_model")


def wrapped(function: Callable[..., Any], wrappers: list[Callable[..., Any]]) -> Callable[..., Any]:
    """Return the function inside its wrappers, the first one outermost."""
    if not wrappers:
        return function
    return lambda *args, **kwargs: wrappers[0](wrapped(function, wrappers[1:]), *args, **kwargs)


class Patcher:
    """A model and what clones of it add: never the model itself."""

    def __init__(self, model: Any):
        self.model, self.load_device = model, torch.device("cpu")
        self.model_options: dict[str, Any] = {"transformer_options": {}}
        self.wrappers: dict[str, dict[str, list[Any]]] = {}

    def clone(self) -> "Patcher":
        other = Patcher(self.model)
        other.model_options = _copied(self.model_options)
        other.wrappers = _copied(self.wrappers)
        return other

    def get_model_object(self, name: str) -> Any:
        return getattr(self.model, name)

    def add_wrapper_with_key(self, kind: str, key: str, wrapper: Any) -> None:
        self.wrappers.setdefault(kind, {}).setdefault(key, []).append(wrapper)

    def set_model_attn1_patch(self, patch: Any) -> None:
        patches = self.model_options["transformer_options"].setdefault("patches", {})
        patches.setdefault("attn1_patch", []).append(patch)

    def set_model_patch_replace(self, patch: Any, name: str, block: str, number: int) -> None:
        replaced = self.model_options["transformer_options"].setdefault("patches_replace", {})
        replaced.setdefault(name, {})[block, number] = patch


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(entry) for key, entry in value.items()}
    return list(value) if isinstance(value, list) else value


class Flow:
    """ComfyUI's model: a transformer, how its latents are scaled, what denoised means."""

    def __init__(self, transformer: Any):
        self.diffusion_model = StandinFlux(transformer)
        channels = transformer.config.in_channels // 4
        scale = {"latent_channels": channels, "spacial_downscale_ratio": 2}
        self.latent_format = SimpleNamespace(process_in=lambda z: z, **scale)
        self.model_sampling = SimpleNamespace(shift=1.15)

    def apply_model(self, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options=None, **others):
        """x - sigma v."""
        v = self.diffusion_model(x, t, c_crossattn, transformer_options=transformer_options or {}, **others)
        return x - t.reshape(-1, 1, 1, 1) * v


def sample_custom(
    patcher, noise, cfg, sampler, sigmas, positive, negative, latent, seed=None, callback=None, **_
) -> Tensor:
    """Run a sampler with the wrappers of a patcher; both branches in one call."""
    options = _copied(patcher.model_options)
    options["transformer_options"]["wrappers"] = patcher.wrappers
    conds, model = [negative, positive], patcher.model
    skip = cfg == 1.0 and not options.get("disable_cfg1_optimization", False)

    def of(kind: str) -> list[Any]:
        return [wrapper for wrappers in patcher.wrappers.get(kind, {}).values() for wrapper in wrappers]

    def predict(x, timestep, model_options, seed=None):
        chosen = [1] if skip else [0, 1]
        inner = {**model_options["transformer_options"], "cond_or_uncond": [1 - i for i in chosen], "sigmas": timestep}
        given = [conds[i][0] for i in chosen]
        rows, times = torch.cat([x] * len(chosen)), torch.cat([timestep] * len(chosen))
        text, pooled = (
            _stacked([cond[0] for cond in given], len(x)),
            _stacked([c[1]["pooled_output"] for c in given], len(x)),
        )
        guidance = torch.cat([torch.full((len(x),), cond[1].get("guidance", 3.5)) for cond in given])
        answer = wrapped(model.apply_model, of("apply_model"))(
            rows, times, None, text, None, inner, y=pooled, guidance=guidance
        )
        parts = answer.chunk(len(chosen))
        return parts[-1] if skip else parts[0] + (parts[1] - parts[0]) * cfg

    def asked(x, sigma, model_options=None, seed=None, **_):
        return wrapped(predict, of("predict_noise"))(x, sigma, model_options, seed)

    def run(guider, sigmas, extra, callback, noise, latents, *rest):
        start = sigmas[0] * noise + (1 - sigmas[0]) * latents
        told = (
            None if callback is None else lambda step: callback(step["i"], step["denoised"], step["x"], len(sigmas) - 1)
        )
        return sampler(asked, start, sigmas, extra_args=extra, callback=told)

    with torch.no_grad():
        extra = {"model_options": options, "seed": seed}
        return wrapped(run, of("sampler_sample"))(None, sigmas, extra, callback, noise, latent, None, True)


def _stacked(rows: list[Tensor], batch: int) -> Tensor:
    return torch.cat([row.expand(batch, *row.shape[1:]) for row in rows])


def euler(model, x, sigmas, extra_args=None, callback=None, disable=None) -> Tensor:
    for i, (t0, t1) in enumerate(zip(sigmas, sigmas[1:])):
        denoised = model(x, t0.expand(len(x)), **extra_args)
        x = x + (t1 - t0) * (x - denoised) / t0
        if callback is not None:
            callback({"i": i, "denoised": denoised, "x": x})
    return x


def heun(model, x, sigmas, extra_args=None, callback=None, disable=None) -> Tensor:
    """Two evaluations a step: times inside are visited twice."""
    for t0, t1 in zip(sigmas, sigmas[1:]):
        slope = (x - model(x, t0.expand(len(x)), **extra_args)) / t0
        there = x + (t1 - t0) * slope
        if t1 > 0:
            slope = (slope + (there - model(there, t1.expand(len(x)), **extra_args)) / t1) / 2
        x = x + (t1 - t0) * slope
    return x


SAMPLERS = {"euler": euler, "heun": heun}


def modules() -> dict[str, ModuleType]:
    """Return `comfy` and the parts of it that the pack imports."""
    parts = {
        "patcher_extension": {"WrappersMP": WRAPPERS},
        "sample": {
            "sample_custom": sample_custom,
            "prepare_noise": lambda z, seed: torch.randn(z.shape, generator=torch.Generator().manual_seed(seed)),
            "fix_empty_latent_channels": lambda model, samples, ratio: samples,
        },
        "samplers": {
            "KSampler": SimpleNamespace(SAMPLERS=list(SAMPLERS), SCHEDULERS=["simple"]),
            "KSAMPLER": lambda function: function,
            "sampler_object": SAMPLERS.__getitem__,
            "calculate_sigmas": lambda sampling, name, steps: torch.linspace(1, 0, steps + 1),
        },
    }
    made = {"comfy": ModuleType("comfy")}
    for name, content in parts.items():
        made[f"comfy.{name}"] = module = ModuleType(f"comfy.{name}")
        module.__dict__.update(content)
        setattr(made["comfy"], name, module)
    made["latent_preview"] = ModuleType("latent_preview")
    made["latent_preview"].__dict__.update(prepare_callback=lambda model, steps: lambda step, denoised, x, total: None)
    return made


def as_model(transformer: Any) -> Patcher:
    """Return a MODEL over a copy of diffusers' transformer."""
    return Patcher(Flow(copy.deepcopy(transformer)))
