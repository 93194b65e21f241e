"""diffusers' FLUX transformer in ComfyUI's own FLUX class, with the same weights."""

from functools import cache
from typing import Any

import comfy.latent_formats
import comfy.model_management
import comfy.model_patcher
import comfy.supported_models
import torch
from einops import rearrange
from torch import Tensor

from stableflow.models.flux_names import flux_places


@cache
def load() -> Any:
    """Return the library's bundled model."""
    import stableflow

    return stableflow.load("tiny")


def as_model(transformer: Any, pixels_a_latent: int = 4) -> Any:
    """Return ComfyUI's MODEL with the weights of diffusers' `FluxTransformer2DModel`, on the CPU in float32.

    Latents are taken as they are: the VAE's shift and scale belong to `as_vae`.
    """
    config = transformer.config
    channels = config["in_channels"] // 4
    given = comfy.supported_models.Flux(
        {
            "image_model": "flux",
            "in_channels": channels,
            "out_channels": channels,
            "patch_size": 2,
            "vec_in_dim": config["pooled_projection_dim"],
            "context_in_dim": config["joint_attention_dim"],
            "hidden_size": config["attention_head_dim"] * config["num_attention_heads"],
            "mlp_ratio": 4.0,
            "num_heads": config["num_attention_heads"],
            "depth": config["num_layers"],
            "depth_single_blocks": config["num_single_layers"],
            "axes_dim": list(config["axes_dims_rope"]),
            "theta": 10000,
            "qkv_bias": True,
            "guidance_embed": config["guidance_embeds"],
            "txt_ids_dims": [],
            "dtype": torch.float32,
        }
    )
    given.latent_format = _Latents(channels, pixels_a_latent)
    given.manual_cast_dtype = None
    model = given.get_model({}, device=torch.device("cpu"))
    weights = given.process_unet_state_dict(_renamed(transformer))
    model.diffusion_model.load_state_dict(weights, strict=True)
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model.eval(), load_device=cpu, offload_device=cpu)


class _Latents(comfy.latent_formats.LatentFormat):
    """Latents in the model's own scale, of so many channels and pixels a side."""

    def __init__(self, channels: int, pixels: int):
        self.latent_channels = channels
        self.spacial_downscale_ratio = pixels


def _renamed(transformer: Any) -> dict[str, Tensor]:
    """The weights under their authors' names: what diffusers split is put together again."""
    own, weights = transformer.state_dict(), {}
    for name, places in flux_places(transformer.config).items():
        if "processor" in name or f"{places[0][0]}.weight" not in own:
            continue
        for part in ("weight", "bias"):
            if f"{places[0][0]}.{part}" in own:
                rows = [own[f"{module}.{part}"] for module, _ in places]
                joined = torch.cat(rows) if len(rows) > 1 else places[0][1](rows[0])
                norm = name.endswith("_norm")
                weights[f"{name}.{'scale' if norm else part}"] = joined.float()
    return weights


class as_clip:
    """The library's text encoders as ComfyUI's CLIP, as far as CLIP Text Encode asks."""

    def __init__(self, library: Any):
        self._library = library

    def tokenize(self, text: str, **options: Any) -> str:
        """Return the text: it is encoded whole."""
        return text

    @torch.no_grad()
    def encode_from_tokens_scheduled(self, tokens: str, **options: Any) -> list[Any]:
        """Return a CONDITIONING."""
        tensors = self._library.encode_prompt([tokens]).tensors
        return [[tensors["encoder_hidden_states"].float(), {"pooled_output": tensors["pooled_projections"].float()}]]


class as_vae:
    """The library's autoencoder as ComfyUI's VAE, as far as VAE Encode and VAE Decode ask."""

    def __init__(self, library: Any):
        self._library = library

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """Return latents of pictures (batch, height, width, 3) in [0, 1]."""
        return self._library.encode_image(rearrange(pixels, "batch height width rgb -> batch rgb height width"))

    @torch.no_grad()
    def decode(self, samples: Tensor) -> Tensor:
        """Return pictures (batch, height, width, 3) in [0, 1]."""
        return rearrange(
            self._library.decode_latents(samples.float()), "batch rgb height width -> batch height width rgb"
        )

    def spacial_compression_decode(self) -> int:
        """Return pixels a latent."""
        return 4
