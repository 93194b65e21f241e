"""What a transformer's weights are, and where and in which type they compute."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stableflow.models.loras import Lora


def checkpoint_digest(transformer: nn.Module) -> str:
    """Return a digest of a sample of every parameter; it changes when weights or adapters do."""
    digest, parameters = hashlib.sha256(), list(transformer.named_parameters())
    device = parameters[0][1].device  # offloading may leave some weights elsewhere
    samples = [_sample(parameter).to(device) for _, parameter in parameters]
    together = torch.cat(samples).cpu()  # one transfer, not one a parameter
    for (name, parameter), sample in zip(parameters, together.split([len(sample) for sample in samples])):
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
        digest.update(sample.numpy().tobytes())
    for name, weights in _adapter_weights(transformer):
        digest.update(f"{name} {weights}".encode())
    return digest.hexdigest()[:16]


def _adapter_weights(transformer: nn.Module) -> Iterator[tuple[str, dict[str, float]]]:
    """Modules whose adapters do not act as they were loaded, with the weights of those that act."""
    for name, layer in transformer.named_modules():
        module: Any = layer
        scaling = getattr(module, "scaling", None)
        if isinstance(scaling, dict):
            acting = {} if module.disable_adapters else {key: scaling[key] for key in module.active_adapters}
            if acting != dict.fromkeys(scaling, 1.0):
                yield name, acting


def _sample(parameter: Tensor) -> Float[Tensor, " elements"]:
    if hasattr(parameter, "dequantize") and type(parameter.data) is not Tensor:
        parameter = parameter.dequantize()  # torchao's tensors cannot be cut
    flat = parameter.detach().reshape(-1)
    return flat[:: max(1, flat.numel() // 64)].float()


def modifications_of(transformer: nn.Module, loras: Sequence[Lora] = ()) -> tuple[str, ...]:
    """Return what was changed in the weights after loading; `loras` are those whose files are known."""
    known = {lora.adapter for lora in loras}
    others = [f"LoRA {name!r}" for name in getattr(transformer, "peft_config", {}) if name not in known]
    quantiser = getattr(transformer, "hf_quantizer", None)
    return (*map(str, loras), *others, *(["quantised weights"] if quantiser else []))


def execution_device(pipeline: Any) -> torch.device:
    """Return where the transformer computes.

    diffusers' own answer looks at every module of the pipeline, which takes longer than a step of a small model; it is
    asked only where offloading keeps weights elsewhere.
    """
    transformer = pipeline.transformer
    registry = getattr(transformer, "_diffusers_hook", None)
    if hasattr(transformer, "_hf_hook") or (registry is not None and registry.hooks):
        return pipeline._execution_device
    return next(transformer.parameters()).device


def compute_dtype(transformer: nn.Module) -> torch.dtype:
    """Return the type that the transformer computes in.

    diffusers' own answer asks every module for a hook by a failing attribute look-up, several times in a step;
    it is asked only where there is a hook.
    """
    registries = (module.__dict__.get("_diffusers_hook") for module in transformer.modules())
    hooked = any(registry is not None and registry.hooks for registry in registries)  # a step leaves an empty one
    first = next(transformer.parameters())
    if hooked or not first.is_floating_point() or getattr(transformer, "_keep_in_fp32_modules", None):
        return transformer.dtype  # pyright: ignore[reportReturnType]: a property of diffusers' models
    return first.dtype
