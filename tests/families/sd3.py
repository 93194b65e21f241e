"""Stable Diffusion 3 without T5, and 3.5-medium: T5, QK norm, a second attention over the image in some layers."""

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from tiny_flux import TEXT_TOKENS, WORDS, tiny_tokenizer
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from families.base import TinyFamily, enlarge, tiny_t5, tiny_vae


def clip(width: int) -> CLIPTextModelWithProjection:
    config = CLIPTextConfig(
        vocab_size=len(WORDS),
        hidden_size=width,
        projection_dim=width,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=TEXT_TOKENS,
        eos_token_id=1,
        bos_token_id=2,
        pad_token_id=0,
    )
    return CLIPTextModelWithProjection(config).eval()


def pipeline(medium: bool) -> StableDiffusion3Pipeline:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        transformer = SD3Transformer2DModel(
            sample_size=16,
            in_channels=4,
            out_channels=4,
            num_layers=4,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=40,
            caption_projection_dim=32,
            pooled_projection_dim=36,
            pos_embed_max_size=24,
            dual_attention_layers=(0, 2) if medium else (),
            qk_norm="rms_norm" if medium else None,
        ).eval()
        encoders = [clip(20), clip(16)]
        t5 = tiny_t5(len(WORDS), 40) if medium else None
        vae = tiny_vae()
        # Without QK norm such weights would saturate attention, and rounding would grow to visible differences.
        enlarge(transformer, gain=1.2 if medium else 0.9)
        enlarge(*encoders, *([t5] if t5 else []))
    made = StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae,
        text_encoder=encoders[0],
        tokenizer=tiny_tokenizer(TEXT_TOKENS),
        text_encoder_2=encoders[1],
        tokenizer_2=tiny_tokenizer(TEXT_TOKENS),
        text_encoder_3=t5,
        tokenizer_3=tiny_tokenizer(512) if medium else None,
    )
    made.set_progress_bar_config(disable=True)
    return made


FAMILIES = [
    TinyFamily(
        name=name,
        make=lambda medium=medium: pipeline(medium),
        guided=(7.0, {"guidance_scale": 7.0}),
        unguided=(1.0, {"guidance_scale": 1.0}),
        block_inputs={"double": ("encoder_hidden_states", "hidden_states")},
    )
    for name, medium in [("SD3", False), ("SD3.5-medium", True)]
]
