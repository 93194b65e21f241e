"""Last stage: a stock FluxPipeline folder."""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline
from diffusers.models.transformers.transformer_flux import FluxAttnProcessor

from stableflow.training.network import Network
from stableflow.training.tokens import make_tokenizer


def export_pipeline(network: Network, autoencoder: AutoencoderKL, folder: Path) -> FluxPipeline:
    """Write transformer, text encoders, tokenizers, autoencoder and scheduler in diffusers' layout.

    Transformer and autoencoder are stored in bfloat16, which diffusers loads as float32 unless told otherwise;
    transformers keeps the stored type, so the small text encoders stay in float32.
    The scheduler has shift 1 and no dynamic shifting, as the times of training were drawn.
    """
    network.use_attention(FluxAttnProcessor)
    tokenizer: Any = make_tokenizer()
    pipeline = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=False),
        vae=autoencoder,
        text_encoder=network.text_encoder,
        tokenizer=tokenizer,
        text_encoder_2=network.text_encoder_2,
        tokenizer_2=tokenizer,
        transformer=network.transformer,
    )
    pipeline.transformer.to(torch.bfloat16)
    pipeline.vae.to(torch.bfloat16)
    pipeline.save_pretrained(folder, safe_serialization=True)
    return pipeline
