"""Bria: 2 double and 2 single layers."""

import torch
from diffusers import BriaPipeline, BriaTransformer2DModel, FlowMatchEulerDiscreteScheduler
from tiny_flux import WORDS, tiny_tokenizer

from families.base import TinyFamily, enlarge, pack_2x2, tiny_t5, tiny_vae


def pipeline() -> BriaPipeline:
    with torch.random.fork_rng():
        torch.manual_seed(8)
        transformer = BriaTransformer2DModel(
            in_channels=16,
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=24,
            axes_dims_rope=[4, 6, 6],
        ).eval()
        text, vae = tiny_t5(len(WORDS)), tiny_vae()
        enlarge(transformer, text)
    made = BriaPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae,
        text_encoder=text,
        tokenizer=tiny_tokenizer(512),
        transformer=transformer,
    )
    made.set_progress_bar_config(disable=True)
    return made


def unpack(pipeline, latents, shape):
    scale = pipeline.vae_scale_factor  # of tokens
    return pipeline._unpack_latents(latents, shape[-2] // 2 * scale, shape[-1] // 2 * scale, scale).reshape(shape)


BOTH = ("encoder_hidden_states", "hidden_states")

FAMILIES = [
    TinyFamily(
        name="Bria",
        make=pipeline,
        guided=(5.0, {"guidance_scale": 5.0}),
        unguided=(1.0, {"guidance_scale": 1.0}),
        block_inputs={"double": BOTH, "single": BOTH},
        pack=pack_2x2,
        unpack=unpack,
    )
]
