"""A FluxPipeline of real classes at tiny size: 2 double and 3 single layers, 4 latent channels, f=2."""

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast, T5Config, T5EncoderModel

WORDS = [
    "<pad>",
    "</s>",
    "<bos>",
    "<unk>",
    *["a", "red", "blue", "dog", "cat", "car", "standing", "sitting", "on", "the", "grass", "snow"],
]
TEXT_TOKENS = 16
SIZE = 16  # pixels
NUM_LAYERS = 5


def tiny_flux_pipeline(*, guidance_embeds: bool = True, seed: int = 0, dynamic_shift: bool = True) -> FluxPipeline:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        transformer = FluxTransformer2DModel(
            in_channels=16,
            num_layers=2,
            num_single_layers=3,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=24,
            pooled_projection_dim=20,
            guidance_embeds=guidance_embeds,
            axes_dims_rope=(4, 6, 6),
        )
        text = T5EncoderModel(
            T5Config(vocab_size=len(WORDS), d_model=24, d_kv=8, d_ff=32, num_layers=1, num_heads=2, pad_token_id=0)
        )
        clip = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(WORDS),
                hidden_size=20,
                intermediate_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                max_position_embeddings=TEXT_TOKENS,
                eos_token_id=1,
                bos_token_id=2,
                pad_token_id=0,
            )
        )
        vae = AutoencoderKL(
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=4,
            sample_size=SIZE,
            scaling_factor=0.7,
            shift_factor=0.1,
            use_quant_conv=False,
            use_post_quant_conv=False,
        )
        _enlarge(transformer, gain=1.5)
        _enlarge(text, gain=1.5)
        _enlarge(clip, gain=1.5)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=dynamic_shift)
    pipeline = FluxPipeline(
        scheduler=scheduler,
        vae=vae.eval(),
        text_encoder=clip.eval(),
        tokenizer=tiny_tokenizer(TEXT_TOKENS),
        text_encoder_2=text.eval(),
        tokenizer_2=tiny_tokenizer(512),
        transformer=transformer.eval(),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _enlarge(module: torch.nn.Module, gain: float) -> None:
    """Weights of about unit gain: the default ones are so small that attention hardly changes anything."""
    for parameter in module.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=gain * parameter.shape[1] ** -0.5)


def tiny_tokenizer(length: int) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        bos_token="<bos>",
        unk_token="<unk>",
        model_max_length=length,
    )
