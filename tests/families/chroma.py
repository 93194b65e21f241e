"""Chroma: 2 double and 2 single layers."""

import torch
from diffusers import ChromaPipeline, ChromaTransformer2DModel, FlowMatchEulerDiscreteScheduler
from tiny_flux import WORDS, tiny_tokenizer

from families.base import TinyFamily, enlarge, pack_2x2, tiny_t5, tiny_vae, unpack_2x2


def pipeline() -> ChromaPipeline:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        transformer = ChromaTransformer2DModel(
            in_channels=16,
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=24,
            axes_dims_rope=(4, 6, 6),
            approximator_num_channels=64,
            approximator_hidden_dim=32,
            approximator_layers=2,
        ).eval()
        text, vae = tiny_t5(len(WORDS)), tiny_vae()
        enlarge(transformer, text)
    made = ChromaPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=vae,
        text_encoder=text,
        tokenizer=tiny_tokenizer(512),
        transformer=transformer,
    )
    made.set_progress_bar_config(disable=True)
    return made


FAMILIES = [
    TinyFamily(
        name="Chroma",
        make=pipeline,
        guided=(5.0, {"guidance_scale": 5.0}),
        unguided=(1.0, {"guidance_scale": 1.0}),
        block_inputs={"double": ("encoder_hidden_states", "hidden_states"), "single": ("hidden_states",)},
        pack=pack_2x2,
        unpack=unpack_2x2,
    )
]
