"""What the conformance suite needs to know of a family, and parts that tiny pipelines share."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL
from tiny_flux import SIZE, tiny_tokenizer
from torch import Tensor
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel


@dataclass(frozen=True, eq=False)
class TinyFamily:
    """How to build a tiny pipeline of a family, and how to drive it without this package.

    Args:
        name: As the table calls it.
        make: Builds the pipeline, the same weights every time.
        guided, unguided: A guidance scale of ours that the model acts on, and the pipeline's arguments for it.
        block_inputs: For each kind of layer, which of a block's inputs its outputs take the place of, in the order of
            the block's own return; keyword names, or positions.
        pack, unpack: From our latents to the pipeline's `latents` argument, and back from what its callback sees.
        text_lengths: Two `max_sequence_length`s.
        vae_round_trip: Images in [-1, 1] there and back through the pipeline's own autoencoder.
        call: More arguments of the pipeline's call, from height and width.
        mixers: Blocks that are no layers and in which image tokens see each other, from the transformer.
        size: Pixels of a picture.
    """

    name: str
    make: Callable[[], Any]
    guided: tuple[float, Mapping[str, Any]]
    unguided: tuple[float | None, Mapping[str, Any]]
    block_inputs: Mapping[str, tuple[str | int, ...]]
    pack: Callable[[Any, Tensor], Tensor] = lambda pipeline, latents: latents
    unpack: Callable[[Any, Tensor, tuple[int, ...]], Tensor] = lambda pipeline, latents, shape: latents
    text_lengths: tuple[int, int] = (24, 17)
    vae_round_trip: Callable[[Any, Tensor], Tensor] = lambda pipeline, images: (
        pipeline.vae.decode(pipeline.vae.encode(images).latent_dist.mode()).sample
    )
    call: Callable[[int, int], Mapping[str, Any]] = lambda height, width: {}
    mixers: Callable[[Any], Sequence[torch.nn.Module]] = lambda transformer: ()
    size: int = SIZE


def pack_2x2(pipeline: Any, latents: Tensor) -> Tensor:
    return pipeline._pack_latents(latents, *latents.shape)


def unpack_2x2(pipeline: Any, latents: Tensor, shape: tuple[int, ...]) -> Tensor:
    scale = pipeline.vae_scale_factor
    return pipeline._unpack_latents(latents, shape[-2] * scale, shape[-1] * scale, scale).reshape(shape)


def tiny_vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=SIZE,
        scaling_factor=0.7,
        shift_factor=0.1,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ).eval()


def tiny_t5(words: int, width: int = 24) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(vocab_size=words, d_model=width, d_kv=8, d_ff=32, num_layers=1, num_heads=2, pad_token_id=0)
    ).eval()


def enlarge(*modules: torch.nn.Module, gain: float = 1.5) -> None:
    """Weights of about unit gain: the default ones are so small that attention hardly changes anything."""
    for module in modules:
        for parameter in module.parameters():
            if parameter.ndim == 2:
                torch.nn.init.normal_(parameter, std=gain * parameter.shape[1] ** -0.5)


def chat_tokenizer() -> PreTrainedTokenizerFast:
    """With a chat template that takes messages of plain text and of typed parts."""
    tokenizer = tiny_tokenizer(512)
    tokenizer.chat_template = (
        "{% for message in messages %}{% if message['role'] == 'user' %}<bos> "
        "{% if message['content'] is string %}{{ message['content'] }}"
        "{% else %}{{ message['content'][0]['text'] }}{% endif %} </s>{% endif %}{% endfor %}"
    )
    return tokenizer
