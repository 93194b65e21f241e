"""Qwen-Image: double layers alone, a video autoencoder, guidance in two passes with a renormalisation.

Prompts keep their own length; in a batch the shorter ones are padded and masked. The guidance scale is the pipeline's
`true_cfg_scale`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from stableflow.models.family import Blocks, Family, Pass
from stableflow.models.guidance import UNGUIDED, classifier_free, guide
from stableflow.models.hooks import AttentionObserver
from stableflow.models.latents import PATCH, Autoencoder, pack, unpack
from stableflow.models.outside import Outside, Pick
from stableflow.models.prompts import Reader
from stableflow.models.watch import watch_streams
from stableflow.types import Images, Latents

NEGATIVE_PROMPT = " "  # what the model's authors use for "nothing to avoid"; the pipeline has no default of its own


def readers(pipeline: Any, length: int) -> list[Reader]:
    first, template = pipeline.prompt_template_encode_start_idx, pipeline.prompt_template_encode
    return [Reader(pipeline.tokenizer, first + length, around=template.format, first=first)]


def encode(pipeline: Any, prompts: list[str], length: int, device: torch.device) -> Mapping[str, Tensor]:
    tensors = {}
    for prefix, texts in ("", prompts), ("negative_", [NEGATIVE_PROMPT] * len(prompts)):
        text, mask = pipeline.encode_prompt(texts, device=device, max_sequence_length=length)
        if mask is None:
            mask = torch.ones(text.shape[:2], dtype=torch.long, device=text.device)
        tensors |= {f"{prefix}encoder_hidden_states": text, f"{prefix}encoder_hidden_states_mask": mask}
    return tensors


def inputs(given: Pass) -> Mapping[str, Any]:
    layout, mask = given.layout, given.tensors["encoder_hidden_states_mask"]
    return {
        "hidden_states": pack(given.latents),
        "timestep": given.t,
        "encoder_hidden_states": given.tensors["encoder_hidden_states"],
        "encoder_hidden_states_mask": None if mask.all() else mask,
        "img_shapes": [[(1, layout.image_rows, layout.image_columns)]] * len(given.latents),
    }


def combine(conditional: Latents, unconditional: Latents, scale: Float[Tensor, " batch"]) -> Latents:
    """Guide, and give every token of guided rows the norm of its conditional branch, as the pipeline does."""
    tokens, guided = pack(conditional.float()), pack(guide(conditional, unconditional, scale))
    norm = torch.linalg.vector_norm(tokens, dim=-1, keepdim=True)
    factor = norm / torch.linalg.vector_norm(guided, dim=-1, keepdim=True)
    combined = torch.where(scale.reshape(-1, 1, 1) > UNGUIDED, guided * factor, tokens)
    return unpack(combined, conditional.shape[-2] // PATCH)


def watch(attention: Any, observer: AttentionObserver) -> Callable[[], None]:
    """Watch the joint attention: text, then image, each rotated by positions of its own, and padded text masked."""
    # Late: the transformer's module is needed for pictures of attention alone.
    from diffusers.models.transformers.transformer_qwenimage import apply_rotary_emb_qwen

    def join(streams: Sequence[Tensor], kwargs: Mapping[str, Any]) -> Tensor:
        image_positions, text_positions = kwargs["image_rotary_emb"]
        rotated: Any = [
            apply_rotary_emb_qwen(stream, positions, use_real=False)
            for stream, positions in zip(streams, (text_positions, image_positions), strict=True)
        ]
        return torch.cat(rotated, dim=1)

    def mask(kwargs: Mapping[str, Any]) -> Tensor | None:
        text = kwargs["encoder_hidden_states_mask"]
        if text is None:
            return None
        image = torch.ones(kwargs["hidden_states"].shape[:2], dtype=torch.bool, device=text.device)
        return torch.cat([text, image], dim=1)[:, None, None, :]

    return watch_streams(attention, observer, streams=["text", "image"], join=join, mask=mask)


def picked(kwargs: Mapping[str, Any], pick: Pick) -> Mapping[str, Any]:
    image, text = kwargs["image_rotary_emb"]
    return {**kwargs, "image_rotary_emb": (pick(image, first=0), text)}


def placed(attention: Any, keys: Tensor, kwargs: Mapping[str, Any]) -> Any:
    # Late: the transformer's module is needed for passes of a region alone.
    from diffusers.models.transformers.transformer_qwenimage import apply_rotary_emb_qwen

    return apply_rotary_emb_qwen(attention.norm_k(keys), kwargs["image_rotary_emb"][0], use_real=False)


def encode_image(vae: Any, pictures: Images) -> Latents:
    mean, inverse_std = _statistics(vae, pictures.device)
    return (vae.encode(pictures[:, :, None]).latent_dist.mode()[:, :, 0].float() - mean) * inverse_std


def decode_latents(vae: Any, latents: Latents, device: torch.device) -> Images:
    mean, inverse_std = _statistics(vae, device)
    video = (latents.to(device) / inverse_std + mean).to(vae.dtype)[:, :, None]
    return vae.decode(video, return_dict=False)[0][:, :, 0]


def _statistics(vae: Any, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean of the autoencoder's latents and one over their deviation, by channel."""
    mean = torch.tensor(vae.config.latents_mean, device=device).reshape(1, -1, 1, 1)
    return mean, 1.0 / torch.tensor(vae.config.latents_std, device=device).reshape(1, -1, 1, 1)


QWEN_IMAGE = Family(
    "Qwen-Image",
    pipelines=("QwenImagePipeline",),
    blocks=(Blocks("double", "transformer_blocks", watch=watch, outside=Outside(picked, placed)),),
    text=(512, 1024),
    guidance=classifier_free(4.0),
    combine=combine,
    readers=readers,
    encode=encode,
    inputs=inputs,
    vae=Autoencoder(encode_image, decode_latents),
)
