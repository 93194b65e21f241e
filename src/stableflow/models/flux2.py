"""FLUX.2 (dev and klein) over an unmodified diffusers Flux2Pipeline or Flux2KleinPipeline."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from stableflow.flow.time_grid import TimeGrid
from stableflow.models.attachment import AttachmentStack
from stableflow.models.base import Conditioning, Guidance, Word
from stableflow.models.checkpoint import checkpoint_digest, compute_dtype, execution_device, modifications_of
from stableflow.models.checks import check_multiple, check_open_to_interventions, check_scheduler, checked_text_length
from stableflow.models.common import even_sigmas, guide, split_words
from stableflow.models.guidance import branch_tensors, branches_for, scale_rows
from stableflow.models.hooks import Branch, Intervention, Layer, Part, Projection, TokenLayout
from stableflow.models.latents import PATCH, default_side, grid_positions
from stableflow.models.prompts import warn_about_lost_text
from stableflow.models.times import TIMESTEPS, flow_times
from stableflow.models.watch import joint_stream, projections_of, text_and_image, watch_text_first
from stableflow.types import Images, Latents

LONGEST_TEXT = 512


class Flux2Model:
    """A FLUX.2 pipeline as a velocity field.

    Its latents are the autoencoder's in patches of 2 x 2, one a token, as the pipeline draws its noise. Single layers
    hold queries, keys, values and MLP in one projection. Guidance is embedded in dev, classifier-free in klein base and
    absent in distilled klein. Reference images are not passed, so there are no tokens but text and image.

    Args:
        pipeline: A Flux2Pipeline or Flux2KleinPipeline; it stays the caller's and nothing in it is replaced.
        name: What the checkpoint is called in presets and messages.
        max_sequence_length: Text tokens of every prompt, chat template included; 512 when None.

    Raises:
        InputError: The scheduler adds noise at every step, or the text length is unusable.
    """

    def __init__(self, pipeline: Any, *, name: str, max_sequence_length: int | None = None):
        check_scheduler(pipeline, name)
        self.pipeline = pipeline
        self.name = name
        self.max_sequence_length = checked_text_length(max_sequence_length, LONGEST_TEXT, LONGEST_TEXT, "FLUX.2")
        self._attachments = AttachmentStack(
            lambda: self.layers, lambda: check_open_to_interventions(self.pipeline.transformer)
        )

    @property
    def layers(self) -> list[Layer]:
        transformer = self.pipeline.transformer
        double = [_double_layer(i, block) for i, block in enumerate(transformer.transformer_blocks)]
        single = enumerate(transformer.single_transformer_blocks, start=len(double))
        return double + [_single_layer(i, block) for i, block in single]

    @property
    def dtype(self) -> torch.dtype:
        return compute_dtype(self.pipeline.transformer)

    @property
    def device(self) -> torch.device:
        return execution_device(self.pipeline)

    @property
    def pixel_multiple(self) -> int:
        return self.pipeline.vae_scale_factor * PATCH

    @property
    def default_size(self) -> tuple[int, int]:
        side = default_side(self.pipeline.vae)
        return side, side

    @property
    def default_guidance_scale(self) -> float | None:
        return 4.0 if self._embeds_guidance or self._classifier_free else None

    @property
    def modifications(self) -> tuple[str, ...]:
        return modifications_of(self.pipeline.transformer)

    def checkpoint_hash(self) -> str:
        return checkpoint_digest(self.pipeline.transformer)

    def check_size(self, height: int, width: int) -> None:
        check_multiple(self.name, height, width, self.pixel_multiple)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        self.check_size(height, width)
        return self.pipeline.transformer.config.in_channels, height // self.pixel_multiple, width // self.pixel_multiple

    def kv_bytes(self, height: int, width: int) -> int:
        _, rows, columns = self.latent_shape(height, width)
        branches = 2 if self._classifier_free else 1
        return 2 * branches * rows * columns * self.pipeline.transformer.inner_dim * self.dtype.itemsize

    @torch.no_grad()
    def encode_prompt(self, prompts: Sequence[str]) -> Conditioning:
        template_tokens = len(self._tokenizer(self._in_template("")).input_ids)
        warn_about_lost_text(self._tokenizer, prompts, self.max_sequence_length - template_tokens)
        tensors = {"encoder_hidden_states": self._encode(list(prompts))}
        if self._classifier_free:
            tensors["negative_encoder_hidden_states"] = self._encode([""] * len(prompts))
        return Conditioning(tuple(prompts), tensors)

    def words(self, prompt: str) -> tuple[Word, ...]:
        return split_words(self._tokenizer, prompt, self.max_sequence_length, around=self._in_template, padded=True)

    @torch.no_grad()
    def encode_image(self, images: Images) -> Latents:
        vae = self.pipeline.vae
        latents = vae.encode(images.to(self.device, vae.dtype) * 2 - 1).latent_dist.mode().float()
        patches = rearrange(
            latents, "batch channels (rows p) (columns q) -> batch (channels p q) rows columns", p=PATCH, q=PATCH
        )
        mean, std = self._statistics()
        return (patches - mean) / std

    @torch.no_grad()
    def decode_latents(self, latents: Latents) -> Images:
        vae = self.pipeline.vae
        mean, std = self._statistics()
        patches = latents.to(self.device) * std + mean
        unpatched = rearrange(
            patches, "batch (channels p q) rows columns -> batch channels (rows p) (columns q)", p=PATCH, q=PATCH
        )
        images = vae.decode(unpatched.to(vae.dtype), return_dict=False)[0]
        return (images.float() / 2 + 0.5).clamp(0, 1)

    def time_grid(self, num_steps: int, height: int, width: int) -> TimeGrid:
        # Late: the pipeline's module imports its text encoder.
        from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu

        _, rows, columns = self.latent_shape(height, width)
        sigmas = even_sigmas(num_steps)
        mu = compute_empirical_mu(image_seq_len=rows * columns, num_steps=num_steps)
        return flow_times(self.pipeline.scheduler, num_steps, mu=mu, sigmas=sigmas)

    @torch.no_grad()
    def velocity(self, latents: Latents, t: float, conditioning: Conditioning, *, guidance_scale: Guidance) -> Latents:
        scale = scale_rows(guidance_scale, self.default_guidance_scale, len(latents), self.device)
        if not self._classifier_free:
            embedded = scale if self._embeds_guidance else None
            return self._pass(latents, t, conditioning, "conditional", embedded).float()
        branches = branches_for(scale, self._attachments.every_branch)
        return guide({branch: self._pass(latents, t, conditioning, branch, None) for branch in branches}, scale)

    def attach(self, *interventions: Intervention) -> AbstractContextManager[None]:
        return self._attachments.attach(*interventions)

    def _pass(
        self, latents: Latents, t: float, conditioning: Conditioning, branch: Branch, guidance: Tensor | None
    ) -> Latents:
        batch, _, rows, columns = latents.shape
        text = branch_tensors(conditioning, branch)["encoder_hidden_states"]
        length = text.shape[1]
        layout = _layout(rows, columns, length)
        timestep = torch.tensor(t, dtype=torch.float32, device=self.device) * TIMESTEPS
        context = "cond" if branch == "conditional" else "uncond"
        transformer = self.pipeline.transformer
        with self._attachments.forward(t, layout, batch, branches=(branch,)), transformer.cache_context(context):
            tokens = transformer(
                hidden_states=rearrange(latents, "batch dim rows columns -> batch (rows columns) dim").to(
                    self.device, self.dtype
                ),
                timestep=timestep.expand(batch).to(self.dtype) / TIMESTEPS,
                guidance=guidance,
                encoder_hidden_states=text,
                txt_ids=_positions(torch.arange(length), axis=3).to(self.device),
                img_ids=_positions(grid_positions(layout), axis=slice(0, 3)).to(self.device),
                return_dict=False,
            )[0]
        return rearrange(tokens, "batch (rows columns) dim -> batch dim rows columns", rows=rows)

    @property
    def _embeds_guidance(self) -> bool:
        return self.pipeline.transformer.config.guidance_embeds

    @property
    def _classifier_free(self) -> bool:
        return not self._embeds_guidance and not self.pipeline.config.get("is_distilled", True)

    def _encode(self, prompts: list[str]) -> Tensor:
        return self.pipeline.encode_prompt(prompts, device=self.device, max_sequence_length=self.max_sequence_length)[0]

    @property
    def _tokenizer(self) -> Any:
        return getattr(self.pipeline.tokenizer, "tokenizer", self.pipeline.tokenizer)  # dev has a processor

    def _in_template(self, prompt: str) -> str:
        """The chat template with a prompt, which the tokenizer reads up to what only follows the prompt."""
        content: Any = prompt
        messages = []
        if hasattr(self.pipeline, "system_message"):
            content = [{"type": "text", "text": prompt}]
            system = [{"type": "text", "text": self.pipeline.system_message}]
            messages = [{"role": "system", "content": system}]
        messages.append({"role": "user", "content": content})
        return self.pipeline.tokenizer.apply_chat_template(messages, tokenize=False)

    def _statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the patches' channels, kept in the autoencoder's batch norm."""
        vae = self.pipeline.vae
        mean = vae.bn.running_mean.reshape(1, -1, 1, 1)
        std = torch.sqrt(vae.bn.running_var.reshape(1, -1, 1, 1) + vae.config.batch_norm_eps)
        return mean.to(self.device, torch.float32), std.to(self.device, torch.float32)


def _positions(values: Tensor, axis: int | slice) -> Tensor:
    """Position ids (time, row, column, text) with some axes given and the others 0."""
    ids = torch.zeros(len(values), 4, dtype=torch.long)
    ids[:, axis] = values
    return ids


def _layout(rows: int, columns: int, text_tokens: int) -> TokenLayout:
    return TokenLayout(
        image_rows=rows,
        image_columns=columns,
        text_tokens=text_tokens,
        image_start={"double": 0, "single": text_tokens},
        joint_start={"text": 0, "image": text_tokens},
    )


def _double_layer(index: int, block: Any) -> Layer:
    projections = partial(projections_of, [block.attn], index)
    return Layer(index, "double", block, projections, text_and_image, partial(watch_text_first, block.attn))


def _single_layer(index: int, block: Any) -> Layer:
    projections = partial(_fused_projections, block.attn)
    return Layer(index, "single", block, projections, joint_stream, partial(watch_text_first, block.attn))


def _fused_projections(attention: Any, part: Part) -> tuple[Projection]:
    """The fused projection's columns are queries, keys, values, MLP."""
    width = attention.inner_dim
    first = width if part == "key" else 2 * width
    return (Projection(attention.to_qkv_mlp_proj, slice(first, first + width)),)
