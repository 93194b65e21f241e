"""What the families that are classes still share; it goes with the last of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from stableflow.errors import InterventionError
from stableflow.models.base import Word
from stableflow.models.checks import check_num_steps
from stableflow.models.guidance import UNGUIDED
from stableflow.models.hooks import Branch
from stableflow.models.latents import PATCH
from stableflow.models.prompts import MARK, WORD
from stableflow.types import Images, Latents


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


def unpack(tokens: Float[Tensor, "batch image_tokens dim"], rows: int) -> Latents:
    """Undo `pack` on a grid of so many rows of tokens."""
    return rearrange(
        tokens,
        "batch (rows columns) (channels p q) -> batch channels (rows p) (columns q)",
        rows=rows,
        p=PATCH,
        q=PATCH,
    )


def guide(velocities: Mapping[Branch, Float[Tensor, "..."]], scale: Float[Tensor, " batch"]) -> Float[Tensor, "..."]:
    """Combine the branches of latents or tokens, float32; a row at scale 1 or less is its conditional one, untouched.

    Source: Ho and Salimans, "Classifier-Free Diffusion Guidance", arXiv:2207.12598, with diffusers' scale.
    """
    conditional = velocities["conditional"].float()
    if "unconditional" not in velocities:
        return conditional
    unconditional = velocities["unconditional"].float()
    rows = scale.reshape(-1, *[1] * (conditional.ndim - 1))
    return torch.where(rows > UNGUIDED, unconditional + rows * (conditional - unconditional), conditional)


def split_words(
    tokenizer: Any,
    prompt: str,
    limit: int,
    *,
    around: Callable[[str], str] = str,
    first: int = 0,
    padded: bool = False,
) -> tuple[Word, ...]:
    """Return the words of a prompt, as spaces divide it, with the positions of their text tokens.

    Words beyond the limit are left out, and so are end and padding tokens, which belong to no word.

    Args:
        limit: Tokens that the tokenizer may give.
        around: The text that the tokenizer reads, from the prompt: a chat template.
        first: Which of the tokenizer's tokens is the first text token of the transformer.
        padded: Whether the tokenizer fills up to the limit, which some do in front.

    Raises:
        InterventionError: The tokenizer does not tell which characters a token stands for.
    """
    return join_words(prompt, tokens_of_words(tokenizer, prompt, limit, around=around, first=first, padded=padded))


def tokens_of_words(
    tokenizer: Any,
    prompt: str,
    limit: int,
    *,
    around: Callable[[str], str] = str,
    first: int = 0,
    padded: bool = False,
) -> list[tuple[int, ...]]:
    """Return the positions of every word's tokens, none where a word is cut off; arguments as for `split_words`."""
    if not tokenizer.is_fast:
        raise InterventionError(
            f"{type(tokenizer).__name__} does not tell which characters its tokens stand for, so attention cannot be "
            "given by words. Load the model with its fast tokenizer (a folder that holds tokenizer.json)."
        )
    text = around(prompt)
    begin = text.index(prompt.strip(), around(MARK).index(MARK))
    encoded = tokenizer(
        text,
        truncation=True,
        max_length=limit,
        padding="max_length" if padded else False,
        add_special_tokens=not (tokenizer.bos_token and text.startswith(tokenizer.bos_token)),  # or there would be two
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
    )
    ends = [begin + word.end() for word in WORD.finditer(prompt.strip())]
    tokens: list[list[int]] = [[] for _ in ends]
    spans = zip(encoded["offset_mapping"], encoded["special_tokens_mask"])
    for position, ((start, end), special) in enumerate(spans, start=-first):
        # A token may start with the space before its word, or be that space alone: it goes with the word that follows.
        found = next((i for i, word_end in enumerate(ends) if word_end > start), None)
        if not special and found is not None and end > max(start, begin) and position >= 0:
            tokens[found].append(position)
    return [tuple(own) for own in tokens]


def join_words(prompt: str, *encoders: Sequence[tuple[int, ...]]) -> tuple[Word, ...]:
    """Return the words of a prompt that some text encoder reads, with their tokens of all."""
    words = [
        Word(word.group(), tuple(token for own in tokens for token in own))
        for word, *tokens in zip(WORD.finditer(prompt), *encoders, strict=True)
    ]
    return tuple(word for word in words if word.tokens)
