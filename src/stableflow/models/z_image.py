"""Z-Image: single layers, image tokens first; the refiners before them, which see one stream alone, are no layers.

Captions keep their own length, and image positions move with it: keys are met before that.

A guidance scale here is the pipeline's plus 1, so that 1 means none as in every other family: the pipeline computes
v_cond + g (v_cond - v_uncond) from its `guidance_scale` g. Distilled checkpoints (Turbo) want 1 here, 0 there.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from stableflow.flow.time_grid import TimeGrid
from stableflow.models.family import Blocks, Family, Pass, Sizes
from stableflow.models.guidance import UNGUIDED, classifier_free
from stableflow.models.latents import PATCH, default_side
from stableflow.models.outside import Outside, Pick
from stableflow.models.prompts import Reader
from stableflow.models.times import TIMESTEPS, flow_times, shift_for
from stableflow.types import Latents

CAPTION_MULTIPLE = 32  # the transformer pads every caption and every image to this


def readers(pipeline: Any, length: int) -> list[Reader]:
    return [Reader(pipeline.tokenizer, length, around=partial(in_template, pipeline.tokenizer))]


def in_template(tokenizer: Any, prompt: str) -> str:
    messages = [{"role": "user", "content": prompt}]
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, enable_thinking=True)


def encode(pipeline: Any, prompts: list[str], length: int, device: torch.device) -> Mapping[str, Tensor]:
    captions, negative = pipeline.encode_prompt(prompts, device=device, max_sequence_length=length)
    return {
        "caption": pad_sequence(captions, batch_first=True),
        "caption_mask": _mask(captions),
        "negative_caption": pad_sequence(negative, batch_first=True),
        "negative_caption_mask": _mask(negative),
    }


def _mask(captions: Sequence[Float[Tensor, "_ dim"]]) -> Tensor:
    ones = [torch.ones(len(caption), dtype=torch.long, device=caption.device) for caption in captions]
    return pad_sequence(ones, batch_first=True)


def text_tokens(tensors: Mapping[str, Tensor]) -> int:
    longest = int(tensors["caption_mask"].sum(dim=1).max())
    return -(-longest // CAPTION_MULTIPLE) * CAPTION_MULTIPLE


def inputs(given: Pass) -> Mapping[str, Any]:
    tensors = given.tensors
    return {
        "x": list(given.latents[:, :, None].unbind()),
        "t": (TIMESTEPS - given.timestep) / TIMESTEPS,
        "cap_feats": [row[mask.bool()] for row, mask in zip(tensors["caption"], tensors["caption_mask"])],
    }


def unpack(output: Sequence[Tensor], rows: int) -> Latents:
    """The transformer returns a list and predicts image - noise."""
    return -torch.stack(list(output))[:, :, 0].float()


def combine(conditional: Latents, unconditional: Latents, scale: Float[Tensor, " batch"]) -> Latents:
    """v_cond + (scale - 1) (v_cond - v_uncond): the same guidance as elsewhere, summed in the pipeline's order."""
    scale = scale.reshape(-1, 1, 1, 1)
    guided = conditional + (scale - 1) * (conditional - unconditional)
    return torch.where(scale > UNGUIDED, guided, conditional)


def times(scheduler: Any, num_steps: int, image_tokens: int) -> TimeGrid:
    sigmas = torch.linspace(1.0, 1 / num_steps, num_steps).tolist()  # in float32, unlike the other pipelines
    return flow_times(scheduler, num_steps, mu=shift_for(scheduler, image_tokens), sigmas=sigmas)


def sizes(pipeline: Any) -> Sizes:
    config, token = pipeline.transformer.config, pipeline.vae_scale_factor * PATCH
    return Sizes(
        pipeline.vae_scale_factor,
        PATCH,
        channels=config.in_channels,
        side=default_side(pipeline.vae),
        kv=config.dim,
        longest=min(config.axes_lens[1:]) * token,
    )


def identity(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """The joint stream, the first argument by position."""
    return args[0]


def picked(kwargs: Mapping[str, Any], pick: Pick) -> Mapping[str, Any]:
    """Positions and mask of every row, since captions keep their length."""
    mask = kwargs["attention_mask"]
    return {
        **kwargs,
        "freqs_cis": pick(kwargs["freqs_cis"], dim=1),
        "attention_mask": None if mask is None else pick(mask, dim=1),
    }


def placed(attention: Any, keys: Tensor, kwargs: Mapping[str, Any]) -> Tensor:
    """QK norm, if there is one, and the rotation as its own attention writes it: of pairs, as complex numbers."""
    keys = keys if attention.norm_k is None else attention.norm_k(keys)
    pairs = torch.view_as_complex(keys.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * kwargs["freqs_cis"][:, :, None]).flatten(3).type_as(keys)


LAYERS = Blocks(
    "single",
    "layers",
    identity,
    attentions=lambda block: [block.attention],
    watch=None,
    outside=Outside(picked, placed),
)

Z_IMAGE = Family(
    "Z-Image",
    pipelines=("ZImagePipeline",),
    blocks=(LAYERS,),
    order=("image",),  # padded to a multiple of 32 before the text, which nobody asks for yet
    text=(512, 512),
    guidance=classifier_free(6.0),
    combine=combine,
    stacked=("conditional", "unconditional"),
    readers=readers,
    encode=encode,
    inputs=inputs,
    unpack=unpack,
    times=times,
    text_tokens=text_tokens,
    sizes=sizes,
    refines=True,
)
