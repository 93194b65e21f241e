"""FLUX.2: dev with Mistral 3 and embedded guidance, klein base with Qwen3 and classifier-free guidance; 2 + 2 layers.

The pipelines read hidden states of fixed layers of their text encoders, so these have 30 and 27 (very narrow) layers.
"""

import torch
from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
)
from tiny_flux import SIZE, WORDS
from transformers import (
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    MistralConfig,
    PixtralVisionConfig,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from families.base import TinyFamily, chat_tokenizer, enlarge

WIDTH = 8  # of the text encoders
DECODER = {
    "vocab_size": len(WORDS),
    "hidden_size": WIDTH,
    "intermediate_size": 8,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "pad_token_id": 0,
}


def mistral() -> Mistral3ForConditionalGeneration:
    text = MistralConfig(num_hidden_layers=30, **DECODER)
    vision = PixtralVisionConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8
    )
    return Mistral3ForConditionalGeneration(
        Mistral3Config(text_config=text, vision_config=vision, image_token_index=len(WORDS) - 1)
    ).eval()


def pipeline(dev: bool) -> Flux2Pipeline | Flux2KleinPipeline:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        transformer = Flux2Transformer2DModel(
            in_channels=16,
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=3 * WIDTH,
            timestep_guidance_channels=32,
            axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=dev,
        ).eval()
        text = mistral() if dev else Qwen3ForCausalLM(Qwen3Config(num_hidden_layers=27, **DECODER)).eval()
        vae = AutoencoderKLFlux2(
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=4,
            sample_size=SIZE,
        ).eval()
        vae.bn.running_mean.normal_(std=0.3)
        vae.bn.running_var.uniform_(0.5, 1.5)
        enlarge(transformer, gain=1.2)
    made = (Flux2Pipeline if dev else Flux2KleinPipeline)(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=vae,
        text_encoder=text,
        tokenizer=chat_tokenizer(),
        transformer=transformer,
    )
    made.set_progress_bar_config(disable=True)
    return made


def unpack(pipeline, latents, shape):
    return latents.transpose(1, 2).reshape(shape)


FAMILIES = [
    TinyFamily(
        name=name,
        make=lambda dev=dev: pipeline(dev),
        guided=(4.0, {"guidance_scale": 4.0}),
        unguided=(1.0, {"guidance_scale": 1.0}),
        block_inputs={"double": ("encoder_hidden_states", "hidden_states"), "single": ("hidden_states",)},
        unpack=unpack,
    )
    for name, dev in [("FLUX.2-dev", True), ("FLUX.2-klein", False)]
]
