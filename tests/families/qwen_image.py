"""Qwen-Image: 3 double layers, a video autoencoder, Qwen2.5-VL as text encoder."""

import torch
from diffusers import (
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
)
from tiny_flux import WORDS, tiny_tokenizer
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from families.base import TinyFamily, enlarge, pack_2x2, unpack_2x2


def text_encoder() -> Qwen2_5_VLForConditionalGeneration:
    config = Qwen2_5_VLConfig(
        text_config={
            "hidden_size": 24,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "rope_scaling": {"mrope_section": [2, 2, 2], "rope_type": "default", "type": "default"},
            "rope_theta": 1000000.0,
            "vocab_size": len(WORDS),
            "bos_token_id": 2,
            "eos_token_id": 1,
            "pad_token_id": 0,
        },
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 24,
        },
        vocab_size=len(WORDS),
        image_token_id=len(WORDS) - 1,
        video_token_id=len(WORDS) - 1,
        vision_start_token_id=len(WORDS) - 1,
        vision_end_token_id=len(WORDS) - 1,
    )
    return Qwen2_5_VLForConditionalGeneration(config).eval()


def pipeline() -> QwenImagePipeline:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        transformer = QwenImageTransformer2DModel(
            in_channels=16,
            out_channels=4,
            num_layers=3,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=24,
            axes_dims_rope=(4, 6, 6),
        ).eval()
        text = text_encoder()
        vae = AutoencoderKLQwenImage(
            base_dim=8,
            z_dim=4,
            dim_mult=[1, 1],
            num_res_blocks=1,
            temperal_downsample=[False],
            latents_mean=[0.1, -0.2, 0.3, 0.0],
            latents_std=[1.1, 0.9, 1.3, 1.0],
        ).eval()
        enlarge(transformer, text.model.language_model)
    made = QwenImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=0.02),
        vae=vae,
        text_encoder=text,
        tokenizer=tiny_tokenizer(2048),
        transformer=transformer,
    )
    made.set_progress_bar_config(disable=True)
    return made


def vae_round_trip(pipeline, images):
    vae = pipeline.vae
    return vae.decode(vae.encode(images[:, :, None]).latent_dist.mode()).sample[:, :, 0]


FAMILIES = [
    TinyFamily(
        name="Qwen-Image",
        make=pipeline,
        guided=(4.0, {"true_cfg_scale": 4.0, "negative_prompt": " "}),
        unguided=(1.0, {"true_cfg_scale": 1.0}),
        block_inputs={"double": ("encoder_hidden_states", "hidden_states")},
        pack=pack_2x2,
        unpack=unpack_2x2,
        text_lengths=(24, 8),
        vae_round_trip=vae_round_trip,
    )
]
