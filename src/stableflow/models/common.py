"""What the families share at the diffusers border: scheduler, autoencoder, token packing, projections, checks."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import torch
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from stableflow.errors import InputError, InterventionError
from stableflow.flow.time_grid import TimeGrid
from stableflow.models.base import AttentionObserver, Part, Projection, Stream, TokenLayout
from stableflow.types import Images, Latents

PATCH = 2  # latent pixels on a side of one token
TIMESTEPS = 1000  # diffusers' `timestep` is t * 1000
USUAL_SIDE = 1024  # pixels; where the checkpoint does not say
ROUTE_AROUND = ("cache", "fbc_", "pyramid_attention_broadcast", "layer_skip", "smoothed_energy")  # diffusers hooks


def check_scheduler(pipeline: Any, name: str) -> None:
    """Raise InputError if the pipeline's scheduler adds noise at every step."""
    if pipeline.scheduler.config.get("stochastic_sampling", False):
        raise InputError(
            f"The scheduler of {name!r} has stochastic_sampling on, which adds noise at every step; a flow "
            "is deterministic. Set stochastic_sampling to false in its scheduler config."
        )


def check_open_to_interventions(transformer: Any) -> None:
    """Raise InterventionError if something routes passes around the projections, or splits them over processes."""
    if getattr(transformer, "_parallel_config", None) is not None:
        raise InterventionError(
            "The transformer runs under context or tensor parallelism, so each process sees a part of the tokens or "
            "of the keys' columns only. Load it without enable_parallelism; edit several pictures at once instead."
        )
    for module in transformer.modules():
        registry = getattr(module, "_diffusers_hook", None)
        names = [] if registry is None else list(registry.hooks)
        found = [name for name in names if any(mark in name for mark in ROUTE_AROUND)]
        if found:
            raise InterventionError(
                f"The transformer has diffusers' {found[0]!r} enabled, which leaves out layers or reuses what they "
                "computed before, so keys and values would be missing or stale. Call "
                "pipeline.transformer.disable_cache(), or load the model again, before editing."
            )


def checkpoint_digest(transformer: nn.Module) -> str:
    """Return a digest of a sample of every parameter; it changes when weights or adapters do."""
    digest, parameters = hashlib.sha256(), list(transformer.named_parameters())
    device = parameters[0][1].device  # offloading may leave some weights elsewhere
    samples = [_sample(parameter).to(device) for _, parameter in parameters]
    together = torch.cat(samples).cpu()  # one transfer, not one a parameter
    for (name, parameter), sample in zip(parameters, together.split([len(sample) for sample in samples])):
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
        digest.update(sample.numpy().tobytes())
    return digest.hexdigest()[:16]


def _sample(parameter: Tensor) -> Float[Tensor, " elements"]:
    if hasattr(parameter, "dequantize") and type(parameter.data) is not Tensor:
        parameter = parameter.dequantize()  # torchao's tensors cannot be cut
    flat = parameter.detach().reshape(-1)
    return flat[:: max(1, flat.numel() // 64)].float()


def modifications_of(transformer: nn.Module) -> tuple[str, ...]:
    """Return what was changed in the weights after loading."""
    adapters = getattr(transformer, "peft_config", {})
    quantiser = getattr(transformer, "hf_quantizer", None)
    return tuple(f"LoRA {name!r}" for name in adapters) + (("quantised weights",) if quantiser else ())


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
    hooked = any("_diffusers_hook" in module.__dict__ for module in transformer.modules())
    first = next(transformer.parameters())
    if hooked or not first.is_floating_point() or getattr(transformer, "_keep_in_fp32_modules", None):
        return transformer.dtype  # pyright: ignore[reportReturnType]: a property of diffusers' models
    return first.dtype


def default_side(vae: Any) -> int:
    """Return the side in pixels of the pictures that the autoencoder was made for."""
    return vae.config.get("sample_size") or USUAL_SIDE


def check_multiple(name: str, height: int, width: int, multiple: int) -> None:
    """Raise InputError unless both sides are positive multiples."""
    if height < multiple or width < multiple or height % multiple or width % multiple:
        raise InputError(
            f"height and width must be positive multiples of {multiple} for {name!r}, got {height}x{width}. "
            f"The nearest is {_nearest(height, multiple)}x{_nearest(width, multiple)}."
        )


def _nearest(side: int, multiple: int) -> int:
    return max(multiple, math.floor(side / multiple + 0.5) * multiple)


def checked_text_length(requested: int | None, default: int, longest: int, family: str) -> int:
    """Return the text tokens of every prompt."""
    if requested is None:
        return default
    if not 1 <= requested <= longest:
        raise InputError(f"max_sequence_length must lie in 1..{longest} for {family}, got {requested}.")
    return requested


def check_num_steps(num_steps: int) -> None:
    """Raise InputError unless there is a step to make."""
    if num_steps < 1:
        raise InputError(f"num_steps must be 1 or more, got {num_steps}.")


def shift_for(scheduler: Any, image_tokens: int, max_shift: float = 1.15) -> float:
    """Return diffusers' `mu`, linear in the number of image tokens; `max_shift` where the scheduler names none."""
    config = scheduler.config
    return calculate_shift(
        image_tokens,
        config.get("base_image_seq_len", 256),
        config.get("max_image_seq_len", 4096),
        config.get("base_shift", 0.5),
        config.get("max_shift", max_shift),
    )


def flow_times(
    scheduler: Any, num_steps: int, *, mu: float | None = None, sigmas: Sequence[float] | None = None
) -> TimeGrid:
    """Return the times that the pipeline's scheduler would visit.

    Args:
        mu: Shift, where the scheduler shifts by size.
        sigmas: Unshifted times that the pipeline passes; the scheduler's own when None.
    """
    own = type(scheduler).from_config(scheduler.config)  # a scheduler keeps state; the pipeline's stays untouched
    shift = {} if mu is None else {"mu": mu}
    if sigmas is None:
        own.set_timesteps(num_steps, **shift)
    else:
        own.set_timesteps(sigmas=sigmas, **shift)
    times = tuple(own.sigmas.tolist())
    if any(math.isnan(t) for t in times):
        raise InputError(
            f"This checkpoint's scheduler cannot make {num_steps} step(s): it stretches its times to end at "
            f"shift_terminal={scheduler.config.get('shift_terminal')}, which needs two or more."
        )
    return TimeGrid(times)


def even_sigmas(num_steps: int) -> Sequence[float]:
    """Return 1 ... 1 / num_steps, which most pipelines start from."""
    check_num_steps(num_steps)
    return np.linspace(1.0, 1 / num_steps, num_steps).tolist()


def vae_encode(vae: Any, images: Images, device: torch.device) -> Latents:
    """Return the mean, shifted and scaled, float32."""
    latents = vae.encode(images.to(device, vae.dtype) * 2 - 1).latent_dist.mode()
    return (latents.float() - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor


def vae_decode(vae: Any, latents: Latents, device: torch.device) -> Images:
    """Return images in [0, 1], float32."""
    unscaled = latents / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)
    images = vae.decode(unscaled.to(device, vae.dtype), return_dict=False)[0]
    return (images.float() / 2 + 0.5).clamp(0, 1)


def pack(latents: Latents) -> Float[Tensor, "batch image_tokens dim"]:
    """Return one token for every 2 x 2 latent pixels, row by row."""
    return rearrange(
        latents, "batch channels (rows p) (columns q) -> batch (rows columns) (channels p q)", p=PATCH, q=PATCH
    )


def unpack(tokens: Float[Tensor, "batch image_tokens dim"], rows: int) -> Latents:
    """Undo `pack` on a grid of so many rows of tokens."""
    return rearrange(
        tokens,
        "batch (rows columns) (channels p q) -> batch channels (rows p) (columns q)",
        rows=rows,
        p=PATCH,
        q=PATCH,
    )


def grid_positions(layout: TokenLayout) -> Int[Tensor, "image_tokens 3"]:
    """Return position ids (0, row, column), one an image token."""
    rows, columns = torch.meshgrid(torch.arange(layout.image_rows), torch.arange(layout.image_columns), indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).reshape(-1, 3)


def projections_of(attentions: Sequence[Any], index: int, part: Part) -> tuple[Projection, ...]:
    """Return `to_k` or `to_v` of the attention modules of layer `index`.

    Raises:
        InterventionError: Their projections are fused, so these modules are not run.
    """
    if any(getattr(attention, "fused_projections", False) for attention in attentions):
        raise InterventionError(
            f"Layer {index} has fused QKV projections, so its keys and values never pass through to_k and to_v. Call "
            "pipeline.transformer.unfuse_qkv_projections() before editing."
        )
    return tuple(Projection(attention.to_k if part == "key" else attention.to_v) for attention in attentions)


def text_and_image(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """The identity of blocks that return both streams, text first."""
    return kwargs["encoder_hidden_states"], kwargs["hidden_states"]


def joint_stream(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """The identity of blocks that take and return one stream."""
    return kwargs["hidden_states"]


BEFORE_ATTENTION: Mapping[Stream, tuple[str, str]] = {
    "text": ("norm_added_{}", "add_{}_proj"),
    "image": ("norm_{}", "to_{}"),
}
"""Names of the QK norm and, where an attention has none, the projection that a stream's queries or keys leave last."""


def watch_streams(
    attention: Any,
    observer: AttentionObserver,
    *,
    streams: Sequence[Stream],
    join: Callable[[Sequence[Tensor], Mapping[str, Any]], Float[Tensor, "batch tokens heads head_dim"]],
    mask: Callable[[Mapping[str, Any]], Tensor | None],
) -> Callable[[], None]:
    """Have an observer told, at the end of every pass of an attention, of what its kernel got.

    Args:
        streams: What the attention runs over, in the order of the joint sequence; "image" alone in single layers.
        join: From the streams' queries or keys, as they left the norm or projection, and the keyword arguments of the
            attention to the joint sequence, with position encoding.
        mask: From the keyword arguments to the mask of the joint sequence that the kernel takes.

    Returns:
        What takes everything off again.
    """
    left: dict[tuple[Stream, str], Tensor] = {}
    this_pass = ExitStack()

    def keep(name: tuple[Stream, str], module: Any, args: Any, output: Tensor) -> None:
        left[name] = output

    def begin(module: Any, args: Any) -> None:
        this_pass.close()  # of a pass that an error ended
        for stream in streams:
            for part in "qk":
                # Set anew in every pass: after the hooks of injection, whichever was attached first.
                hook = partial(keep, (stream, part))
                this_pass.callback(_last_module(attention, stream, part).register_forward_hook(hook).remove)

    def report(module: Any, args: Any, kwargs: Mapping[str, Any], output: Any) -> None:
        this_pass.close()
        queries, keys = (join([left[stream, part] for stream in streams], kwargs) for part in "qk")
        left.clear()
        observer(queries, keys, _bias(mask(kwargs)))

    watching = ExitStack()
    watching.callback(this_pass.close)
    watching.callback(attention.register_forward_pre_hook(begin).remove)
    watching.callback(attention.register_forward_hook(report, with_kwargs=True).remove)
    return watching.close


def watch_text_first(attention: Any, observer: AttentionObserver) -> Callable[[], None]:
    """Watch an attention that works as FLUX's: text, then image, both rotated as one sequence."""
    streams: list[Stream] = ["image"] if getattr(attention, "added_kv_proj_dim", None) is None else ["text", "image"]

    def join(parts: Sequence[Tensor], kwargs: Mapping[str, Any]) -> Any:
        return apply_rotary_emb(torch.cat(list(parts), dim=1), kwargs["image_rotary_emb"], sequence_dim=1)

    def mask(kwargs: Mapping[str, Any]) -> Tensor | None:
        return kwargs.get("attention_mask")

    return watch_streams(attention, observer, streams=streams, join=join, mask=mask)


def _last_module(attention: Any, stream: Stream, part: str) -> nn.Module:
    norm, projection = (name.format(part) for name in BEFORE_ATTENTION[stream])
    return getattr(attention, norm, None) or getattr(attention, projection)


def _bias(mask: Tensor | None) -> Tensor | None:
    """What the kernel adds: a mask of booleans forbids where it is false, any other is added as it is."""
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, -torch.inf)
