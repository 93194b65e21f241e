"""Z-Image: 3 layers after 1 + 1 refiners, Qwen3 as text encoder."""

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
from tiny_flux import WORDS
from transformers import Qwen3Config, Qwen3Model

from families.base import TinyFamily, chat_tokenizer, enlarge, tiny_vae


def pipeline() -> ZImagePipeline:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        transformer = ZImageTransformer2DModel(
            in_channels=4,
            dim=32,
            n_layers=3,
            n_refiner_layers=1,
            n_heads=2,
            n_kv_heads=2,
            cap_feat_dim=16,
            axes_dims=[4, 6, 6],
            axes_lens=[512, 32, 32],
        ).eval()
        text = Qwen3Model(
            Qwen3Config(
                vocab_size=len(WORDS),
                hidden_size=16,
                intermediate_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=2,
                head_dim=8,
                bos_token_id=2,
                eos_token_id=1,
                pad_token_id=0,
            )
        ).eval()
        vae = tiny_vae()
        enlarge(transformer, text, gain=1.2)
    made = ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae,
        text_encoder=text,
        tokenizer=chat_tokenizer(),
        transformer=transformer,
    )
    made.set_progress_bar_config(disable=True)
    return made


FAMILIES = [
    TinyFamily(
        name="Z-Image",
        make=pipeline,
        guided=(6.0, {"guidance_scale": 5.0}),
        unguided=(1.0, {"guidance_scale": 0.0}),
        block_inputs={"single": (0,)},
        text_lengths=(24, 5),
        mixers=lambda transformer: list(transformer.noise_refiner),
    )
]
