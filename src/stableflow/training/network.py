"""The small FLUX: transformer and both text encoders, of diffusers' and transformers' own classes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import FluxTransformer2DModel
from diffusers.models.transformers.transformer_flux import FluxAttention
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from stableflow.training.tokens import LENGTHS, words

PATCH = 2


@dataclass(frozen=True)
class NetworkSettings:
    """Sizes of the network; `axes` are the RoPE channels of one head for (constant, row, column).

    Args:
        scene_layers: Of the world whose captions it reads, which decide its words and the length of its text.
    """

    latent_channels: int = 8
    double_layers: int = 4
    single_layers: int = 8
    heads: int = 4
    axes: tuple[int, int, int] = (8, 16, 16)
    text_width: int = 128
    text_layers: int = 2
    scene_layers: int = 2


class Network(nn.Module):
    """Predicts the velocity of packed latents from caption tokens, time and guidance scale."""

    def __init__(self, settings: NetworkSettings):
        super().__init__()
        self.scene_layers = settings.scene_layers
        head = sum(settings.axes)
        self.transformer = FluxTransformer2DModel(
            in_channels=settings.latent_channels * PATCH**2,
            num_layers=settings.double_layers,
            num_single_layers=settings.single_layers,
            attention_head_dim=head,
            num_attention_heads=settings.heads,
            joint_attention_dim=settings.text_width,
            pooled_projection_dim=settings.text_width,
            guidance_embeds=True,
            axes_dims_rope=settings.axes,
        )
        self.text_encoder_2 = T5EncoderModel(_t5_config(settings))
        self.text_encoder = CLIPTextModel(_clip_config(settings))
        _initialise(self.transformer)

    def forward(
        self,
        tokens: Float[Tensor, "batch image_tokens channels"],
        t: Float[Tensor, " batch"],
        caption: Int[Tensor, "batch text_tokens"],
        guidance: Float[Tensor, " batch"],
    ) -> Float[Tensor, "batch image_tokens channels"]:
        """Return dz/dt; t and guidance are passed as FluxPipeline passes them (the transformer multiplies by 1000)."""
        text = self.text_encoder_2(input_ids=caption).last_hidden_state
        side = int(tokens.shape[1] ** 0.5)
        return self.transformer(
            hidden_states=tokens,
            encoder_hidden_states=text,
            pooled_projections=self.text_encoder(input_ids=caption).pooler_output,
            timestep=t,
            guidance=guidance,
            img_ids=_image_ids(side).to(tokens),
            txt_ids=torch.zeros(caption.shape[1], 3).to(tokens),
            return_dict=False,
        )[0]

    def use_attention(self, processor: Callable[[], Any]) -> None:
        """Give every attention of the transformer a processor of its own; weights and results stay the same."""
        for module in self.transformer.modules():
            if isinstance(module, FluxAttention):
                module.set_processor(processor())


def pack(latents: Tensor) -> Tensor:
    """(batch, channels, height, width) -> (batch, tokens, channels * 4), as FLUX packs."""
    return rearrange(latents, "b c (h p) (w q) -> b (h w) (c p q)", p=PATCH, q=PATCH)


def unpack(tokens: Tensor) -> Tensor:
    """The way back, for square pictures."""
    side = int(tokens.shape[1] ** 0.5)
    return rearrange(tokens, "b (h w) (c p q) -> b c (h p) (w q)", h=side, p=PATCH, q=PATCH)


def _image_ids(side: int) -> Tensor:
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).reshape(-1, 3).float()


def _t5_config(settings: NetworkSettings) -> T5Config:
    return T5Config(
        vocab_size=len(words(settings.scene_layers)),
        d_model=settings.text_width,
        d_kv=32,
        d_ff=2 * settings.text_width,
        num_layers=settings.text_layers,
        num_heads=4,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        pad_token_id=0,
        eos_token_id=1,
    )


def _clip_config(settings: NetworkSettings) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(words(settings.scene_layers)),
        hidden_size=settings.text_width,
        intermediate_size=2 * settings.text_width,
        num_hidden_layers=settings.text_layers,
        num_attention_heads=4,
        max_position_embeddings=LENGTHS[settings.scene_layers],
        projection_dim=settings.text_width,
        pad_token_id=0,
        eos_token_id=1,  # 2 would switch on a legacy pooling
        bos_token_id=2,
    )


def _initialise(transformer: FluxTransformer2DModel) -> None:
    """Xavier weights; zero modulation and output (adaLN-zero), which is not diffusers' default."""
    for name, parameter in transformer.named_parameters():
        if parameter.ndim == 2:
            nn.init.xavier_uniform_(parameter)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
    for name, module in transformer.named_modules():
        modulates = name.endswith(("norm1.linear", "norm1_context.linear", "norm.linear", "norm_out.linear"))
        if (modulates or name == "proj_out") and isinstance(module, nn.Linear):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
