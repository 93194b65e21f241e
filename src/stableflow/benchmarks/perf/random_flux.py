"""FLUX pipelines of chosen shapes with random weights: speed depends on shapes, not on what was learnt."""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from torch import nn
from transformers import AutoTokenizer, CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from stableflow.models.families import wrap
from stableflow.models.load import bundled_path
from stableflow.models.model import DiffusersModel


@dataclass(frozen=True)
class Shape:
    """Sizes of a FLUX transformer and of the autoencoder beside it; text encoders are stubs of one layer.

    Args:
        double, single: Layers.
        heads, head_dim: Of attention; their product is the width.
        rope: Position channels (frame, row, column) of a head.
        latent_channels, text_dim, pooled_dim: What the transformer takes.
        text_tokens: Of every prompt.
        side: Pixels; one token is 16 x 16 of them.
        autoencoder: Channels of its four stages.
    """

    double: int
    single: int
    heads: int
    head_dim: int
    rope: tuple[int, int, int]
    latent_channels: int
    text_dim: int
    pooled_dim: int
    text_tokens: int
    side: int
    autoencoder: tuple[int, int, int, int] = (16, 16, 16, 16)

    @property
    def width(self) -> int:
        return self.heads * self.head_dim


SHAPES = {
    "tiny": Shape(2, 3, 2, 16, (4, 6, 6), 4, 24, 20, text_tokens=16, side=64),
    "mid": Shape(3, 6, 8, 64, (16, 24, 24), 16, 256, 128, text_tokens=64, side=256),
    "flux": Shape(
        19, 38, 24, 128, (16, 56, 56), 16, 4096, 768, text_tokens=512, side=1024, autoencoder=(128, 256, 512, 512)
    ),
}
"""Names of `--size`: "flux" is FLUX.1-dev's exact shape, 11.9 thousand million weights."""


def random_flux(
    shape: Shape, *, device: str = "cpu", dtype: torch.dtype = torch.float32, seed: int = 0
) -> DiffusersModel:
    """Return a model over such a pipeline; the transformer's weights are made where they are used."""
    # diffusers' own `to` would warn of nothing
    transformer: Any = nn.Module.to(empty_transformer(shape), dtype).to_empty(device=device)
    _fill(transformer, torch.Generator(device).manual_seed(seed))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        stubs: list[Any] = [nn.Module.to(part, device, dtype).eval() for part in _stubs(shape)]
    folder = bundled_path("tiny")
    tokenizers = [AutoTokenizer.from_pretrained(folder / name) for name in ("tokenizer", "tokenizer_2")]
    pipeline = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=stubs[0],
        text_encoder=stubs[1],
        tokenizer=tokenizers[0],
        text_encoder_2=stubs[2],
        tokenizer_2=tokenizers[1],
        transformer=transformer.eval(),
    )
    pipeline.set_progress_bar_config(disable=True)
    return wrap(pipeline, name="random-flux", max_sequence_length=shape.text_tokens)


def empty_transformer(shape: Shape) -> FluxTransformer2DModel:
    """Return a transformer of this shape without memory for its weights."""
    with torch.device("meta"):
        return FluxTransformer2DModel(
            in_channels=4 * shape.latent_channels,
            num_layers=shape.double,
            num_single_layers=shape.single,
            attention_head_dim=shape.head_dim,
            num_attention_heads=shape.heads,
            joint_attention_dim=shape.text_dim,
            pooled_projection_dim=shape.pooled_dim,
            guidance_embeds=True,
            axes_dims_rope=shape.rope,
        )


def _fill(module: nn.Module, generator: torch.Generator) -> None:
    """Matrices of unit gain, scales of norms 1, biases 0."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=parameter[0].numel() ** -0.5, generator=generator)
            else:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)


def _stubs(shape: Shape) -> tuple[nn.Module, nn.Module, nn.Module]:
    words = 64
    vae = AutoencoderKL(
        block_out_channels=shape.autoencoder,  # pyright: ignore[reportArgumentType]: annotated as of one
        down_block_types=("DownEncoderBlock2D",) * 4,  # pyright: ignore[reportArgumentType]: annotated as of one
        up_block_types=("UpDecoderBlock2D",) * 4,  # pyright: ignore[reportArgumentType]: annotated as of one
        layers_per_block=1,
        latent_channels=shape.latent_channels,
        norm_num_groups=8,
        sample_size=shape.side,
        scaling_factor=0.36,
        shift_factor=0.12,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    clip = CLIPTextConfig(
        vocab_size=words,
        hidden_size=shape.pooled_dim,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=77,
        eos_token_id=1,
        bos_token_id=2,
        pad_token_id=0,
    )
    text = T5Config(
        vocab_size=words, d_model=shape.text_dim, d_kv=8, d_ff=32, num_layers=1, num_heads=2, pad_token_id=0
    )
    return vae, CLIPTextModel(clip), T5EncoderModel(text)
