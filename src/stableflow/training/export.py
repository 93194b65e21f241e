"""Trained networks as the folders that diffusers and transformers read."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline
from diffusers.models.transformers.transformer_flux import FluxAttnProcessor

from stableflow.files import replacing_folder
from stableflow.training.network import Network
from stableflow.training.tokens import make_tokenizer


def export_pipeline(network: Network, autoencoder: AutoencoderKL, folder: Path, *, shift: float = 1.0) -> FluxPipeline:
    """Write transformer, text encoders, tokenizers, autoencoder and scheduler in diffusers' layout.

    Transformer and autoencoder are stored in bfloat16, which diffusers loads as float32 unless told otherwise;
    transformers keeps the stored type, so the small text encoders stay in float32.
    The scheduler has no dynamic shifting.

    Args:
        shift: Of the scheduler's times: the one that the times of training were drawn with.
    """
    network.use_attention(FluxAttnProcessor)
    tokenizer: Any = make_tokenizer(network.scene_layers)
    pipeline = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=shift, use_dynamic_shifting=False),
        vae=autoencoder,
        text_encoder=network.text_encoder,
        tokenizer=tokenizer,
        text_encoder_2=network.text_encoder_2,
        tokenizer_2=tokenizer,
        transformer=network.transformer,
    )
    pipeline.transformer.to(torch.bfloat16)
    pipeline.vae.to(torch.bfloat16)
    with replacing_folder(folder) as temporary:
        pipeline.save_pretrained(temporary, safe_serialization=True)
    return pipeline


def export_encoder(encoder: Any, folder: Path, *, size: int, processor: str, tokenizer: Any = None) -> None:
    """Write a transformers encoder in float16, with the preprocessing that its pictures need.

    Args:
        size: Pixels on a side of the pictures that it was trained on.
        processor: Class name of transformers' image processor.
        tokenizer: Of an encoder that reads words too.
    """
    config = {
        "image_processor_type": processor,
        "do_resize": True,
        "size": {"shortest_edge": size},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    with replacing_folder(folder) as temporary:
        encoder.half().save_pretrained(temporary, safe_serialization=True)
        if tokenizer is not None:
            tokenizer.save_pretrained(temporary)
        (temporary / "preprocessor_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
