"""FLUX.2: dev, guided by an embedded scale; klein base, classifier-free; distilled klein, not guided at all.

Latents are the autoencoder's in patches of 2 x 2, one a token, as the pipeline draws its noise. Single layers hold
queries, keys, values and MLP in one projection. Reference pictures follow the image's tokens, 10 apart in time.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from stableflow.flow.time_grid import TimeGrid
from stableflow.models.family import Blocks, Family, Pass, Sizes
from stableflow.models.following import positioned_call
from stableflow.models.guidance import Guided, embedded
from stableflow.models.hooks import Part, Projection
from stableflow.models.latents import PATCH, Autoencoder, default_side, grid_positions, pack, positions_of, unpack
from stableflow.models.prompts import Reader
from stableflow.models.reference import with_reference
from stableflow.models.times import even_sigmas, flow_times
from stableflow.models.watch import joint_stream
from stableflow.types import Images, Latents

REFERENCES_APART = 10  # of the first position id, as the model was trained
PIXELS, PATCHES = "batch channels (rows p) (columns q)", "batch (channels p q) rows columns"


def guidance(pipeline: Any) -> Guided:
    if pipeline.transformer.config.guidance_embeds or pipeline.config.get("is_distilled", True):
        return embedded(4.0)(pipeline)
    return Guided(4.0, classifier_free=True)


def readers(pipeline: Any, length: int) -> list[Reader]:
    tokenizer = getattr(pipeline.tokenizer, "tokenizer", pipeline.tokenizer)  # dev has a processor
    return [Reader(tokenizer, length, around=partial(in_template, pipeline), padded=True)]


def in_template(pipeline: Any, prompt: str) -> str:
    """The chat template with a prompt, which the tokenizer reads up to what only follows the prompt."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": prompt}]
    if hasattr(pipeline, "system_message"):
        texts = {"system": pipeline.system_message, "user": prompt}
        messages = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in texts.items()]
    return pipeline.tokenizer.apply_chat_template(messages, tokenize=False)


def encode(pipeline: Any, prompts: list[str], length: int, device: torch.device) -> Mapping[str, Tensor]:
    def encoded(texts: list[str]) -> Tensor:
        return pipeline.encode_prompt(texts, device=device, max_sequence_length=length)[0]

    tensors = {"encoder_hidden_states": encoded(prompts)}
    if guidance(pipeline).classifier_free:
        tensors["negative_encoder_hidden_states"] = encoded([""] * len(prompts))
    return tensors


def inputs(given: Pass) -> Mapping[str, Any]:
    text, image = torch.arange(given.layout.text_tokens), grid_positions(given.layout)
    own = {
        "hidden_states": pack(given.latents, patch=1),
        "timestep": given.t,
        "guidance": given.guidance,
        "txt_ids": _positions(text, axis=3).to(given.latents.device),
        "img_ids": _positions(image, axis=slice(0, 3)).to(given.latents.device),
        **given.tensors,
    }
    return with_reference(own)


def refer(pipeline: Any, pictures: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Any number of pictures: their latents in tokens, at times 10, 20, ..."""
    tokens, positions = list[Tensor](), list[Tensor]()
    for number, picture in enumerate(pictures, start=1):
        latents = encode_image(pipeline.vae, picture)
        ids = _positions(positions_of(*latents.shape[-2:]), axis=slice(0, 3))
        ids[:, 0] = REFERENCES_APART * number
        tokens.append(pack(latents, patch=1))
        positions.append(ids)
    return torch.cat(tokens, dim=1), torch.cat(positions)[None]


def _positions(values: Tensor, axis: int | slice) -> Tensor:
    """Position ids (time, row, column, text) with some axes given and the others 0."""
    ids = torch.zeros(len(values), 4, dtype=torch.long)
    ids[:, axis] = values
    return ids


def fused_projections(attentions: Sequence[Any], index: int, part: Part) -> list[Projection]:
    """The fused projection's columns are queries, keys, values, MLP."""
    width = attentions[0].inner_dim
    first = width if part == "key" else 2 * width
    return [Projection(attentions[0].to_qkv_mlp_proj, slice(first, first + width))]


def times(scheduler: Any, num_steps: int, image_tokens: int) -> TimeGrid:
    # Late: the pipeline's module imports its text encoder.
    from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu

    mu = compute_empirical_mu(image_seq_len=image_tokens, num_steps=num_steps)
    return flow_times(scheduler, num_steps, mu=mu, sigmas=even_sigmas(num_steps))


def encode_image(vae: Any, pictures: Images) -> Latents:
    latents = vae.encode(pictures).latent_dist.mode().float()
    mean, std = _statistics(vae, pictures.device)
    return (rearrange(latents, f"{PIXELS} -> {PATCHES}", p=PATCH, q=PATCH) - mean) / std


def decode_latents(vae: Any, latents: Latents, device: torch.device) -> Images:
    mean, std = _statistics(vae, device)
    pixels = rearrange(latents.to(device) * std + mean, f"{PATCHES} -> {PIXELS}", p=PATCH, q=PATCH)
    return vae.decode(pixels.to(vae.dtype), return_dict=False)[0]


def _statistics(vae: Any, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the patches' channels, kept in the autoencoder's batch norm."""
    mean = vae.bn.running_mean.reshape(1, -1, 1, 1)
    std = torch.sqrt(vae.bn.running_var.reshape(1, -1, 1, 1) + vae.config.batch_norm_eps)
    return mean.to(device, torch.float32), std.to(device, torch.float32)


def sizes(pipeline: Any) -> Sizes:
    transformer, side = pipeline.transformer, default_side(pipeline.vae)
    return Sizes(pipeline.vae_scale_factor * PATCH, 1, transformer.config.in_channels, side, transformer.inner_dim)


FLUX2 = Family(
    "FLUX.2",
    pipelines=("Flux2Pipeline", "Flux2KleinPipeline"),
    blocks=(
        Blocks("double", "transformer_blocks"),
        Blocks("single", "single_transformer_blocks", identity=joint_stream, projections=fused_projections),
    ),
    text=(512, 512),
    guidance=guidance,
    readers=readers,
    encode=encode,
    inputs=inputs,
    unpack=partial(unpack, patch=1),
    refer=refer,
    call=positioned_call,
    times=times,
    vae=Autoencoder(encode_image, decode_latents),
    sizes=sizes,
)
