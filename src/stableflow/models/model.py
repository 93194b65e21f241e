"""The one class over a diffusers pipeline: a velocity field, read from the pipeline as its family declares."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from stableflow.errors import InterventionError
from stableflow.flow.time_grid import TimeGrid
from stableflow.models.adapter_rows import adapter_rows, checked_weights, row_weights
from stableflow.models.attached import AttachmentStack
from stableflow.models.base import Conditioning, Guidance, Word
from stableflow.models.checks import (
    check_multiple,
    check_num_steps,
    check_open_to_interventions,
    check_scheduler,
    check_side,
    checked_text_length,
)
from stableflow.models.compilation import attention_kernels
from stableflow.models.family import Family, Pass, Sizes
from stableflow.models.following import Call, following
from stableflow.models.guidance import branches_for, scale_rows, tensors_of
from stableflow.models.hooks import Branch, Intervention, Layer, TokenLayout
from stableflow.models.loras import Lora
from stableflow.models.outside import READ_BY, thinned
from stableflow.models.parallel import banded, processes_of
from stableflow.models.prompts import split_words, vocabulary, warn_about_lost_text
from stableflow.models.reference import TOKENS, refer
from stableflow.models.times import TIMESTEPS
from stableflow.models.weights import checkpoint_digest, compute_dtype, execution_device, modifications_of
from stableflow.types import Images, Latents


class DiffusersModel:
    """A pipeline as a velocity field: satisfies `FlowModel`, and `ShowsAttention` where its layers have `watch`.

    Args:
        pipeline: A pipeline of one of the family's classes; it stays the caller's and nothing in it is replaced.
        family: How to read it.
        name: What the checkpoint is called in presets and messages.
        max_sequence_length: Text tokens of every prompt; the family's default when None.
        loras: Those that were put on by name, in order.

    Raises:
        InputError: The scheduler adds noise at every step, or the text length is unusable.
    """

    def __init__(
        self,
        pipeline: Any,
        family: Family,
        *,
        name: str,
        max_sequence_length: int | None = None,
        loras: Sequence[Lora] = (),
    ):
        check_scheduler(pipeline, name)
        self.pipeline, self.family, self.name, self.loras = pipeline, family, name, tuple(loras)
        default, longest = family.text
        if family.text_within is not None:
            default = min(default, getattr(pipeline, family.text_within).model_max_length)
        self.max_sequence_length = checked_text_length(max_sequence_length, default, longest, family.name)
        shows_attention = all(blocks.watch is not None for blocks in family.blocks)
        self.words = partial(_words, pipeline, family, self.max_sequence_length) if shows_attention else None
        self._adapters: tuple[float, ...] | None = None
        self._attachments = AttachmentStack(
            lambda: self.layers, lambda: check_open_to_interventions(self.pipeline.transformer)
        )

    def __reduce__(self) -> Any:
        return self._attachments.__reduce__()  # which says why not

    @property
    def layers(self) -> list[Layer]:
        layers: list[Layer] = []
        for blocks in self.family.blocks:
            layers += blocks.layers(self.pipeline.transformer, len(layers))
        return layers

    @property
    def dtype(self) -> torch.dtype:
        return compute_dtype(self.pipeline.transformer)

    @property
    def device(self) -> torch.device:
        return execution_device(self.pipeline)

    @property
    def pixel_multiple(self) -> int:
        return self._sizes.pixel * self._sizes.patch

    @property
    def default_size(self) -> tuple[int, int]:
        return self._sizes.side, self._sizes.side

    @property
    def default_guidance_scale(self) -> float | None:
        return self.family.guidance(self.pipeline).scale

    @property
    def modifications(self) -> tuple[str, ...]:
        return modifications_of(self.pipeline.transformer, self.loras)

    def checkpoint_hash(self) -> str:
        return checkpoint_digest(self.pipeline.transformer)

    def check_size(self, height: int, width: int) -> None:
        check_multiple(self.name, height, width, self.pixel_multiple)
        check_side(self.name, height, width, self._sizes.longest)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        self.check_size(height, width)
        sizes = self._sizes
        return sizes.channels, height // sizes.pixel, width // sizes.pixel

    def kv_bytes(self, height: int, width: int) -> int:
        branches = 2 if self.family.guidance(self.pipeline).classifier_free else 1
        return 2 * branches * self._image_tokens(height, width) * self._sizes.kv * self.dtype.itemsize

    def vocabulary(self) -> tuple[str, ...]:
        """Return the only words that its text encoders know; none where they are too many to list."""
        readers = self.family.readers(self.pipeline, self.max_sequence_length)
        return tuple(dict.fromkeys(word for reader in readers for word in vocabulary(reader.tokenizer)))

    def warn_about(self, prompts: Sequence[str]) -> None:
        """Warn (`PromptWarning`) of what has no effect in these prompts: unknown words, and text beyond the limit."""
        for reader in self.family.readers(self.pipeline, self.max_sequence_length):
            warn_about_lost_text(reader.tokenizer, prompts, reader.room)

    @torch.no_grad()
    def encode_prompt(self, prompts: Sequence[str]) -> Conditioning:
        self.warn_about(prompts)
        tensors = self.family.encode(self.pipeline, list(prompts), self.max_sequence_length, self.device)
        return Conditioning(tuple(prompts), tensors)

    @torch.no_grad()
    def encode_image(self, images: Images) -> Latents:
        vae = self.pipeline.vae
        return self.family.vae.encode(vae, images.to(self.device, vae.dtype) * 2 - 1)

    @torch.no_grad()
    def with_reference(self, conditioning: Conditioning, pictures: Sequence[Tensor]) -> Conditioning:
        """Return a conditioning whose passes also read reference pictures, as a trained editor does.

        Args:
            pictures: (1, 3, height, width) in [0, 1] each, sides multiples of `pixel_multiple`.

        Raises:
            InputError: The model was not trained with any, or not with so many.
        """
        # Laid out in memory as the pipelines' own image processors leave pictures: convolutions sum in that order.
        layout = {"dtype": self.pipeline.vae.dtype, "memory_format": torch.channels_last}
        scaled = [picture.to(self.device, **layout) * 2 - 1 for picture in pictures]
        return refer(self.pipeline, self.family.name, self.family.refer, conditioning, scaled)

    @torch.no_grad()
    def decode_latents(self, latents: Latents) -> Images:
        images = self.family.vae.decode(self.pipeline.vae, latents, self.device)
        return (images.float() / 2 + 0.5).clamp(0, 1)

    def time_grid(self, num_steps: int, height: int, width: int) -> TimeGrid:
        check_num_steps(num_steps)
        return self.family.times(self.pipeline.scheduler, num_steps, self._image_tokens(height, width))

    @torch.no_grad()
    def velocity(self, latents: Latents, t: float, conditioning: Conditioning, *, guidance_scale: Guidance) -> Latents:
        return self.velocity_with_grad(latents, t, conditioning, guidance_scale=guidance_scale)

    def velocity_with_grad(
        self, latents: Latents, t: float, conditioning: Conditioning, *, guidance_scale: Guidance
    ) -> Latents:
        """Return the same velocity, through which gradients reach the latents and the conditioning."""
        guided = self.family.guidance(self.pipeline)
        scale = scale_rows(guidance_scale, guided.scale, len(latents), self.device)
        branches = branches_for(scale, self._attachments.every_branch) if guided.classifier_free else ("conditional",)
        velocities: dict[Branch, Latents] = {}
        for together in self.family.passes(branches):
            embedded = scale if guided.embedded else None
            velocities |= self._pass(latents, t, conditioning, together, embedded)
        if "unconditional" not in velocities:
            return velocities["conditional"].float()
        return self.family.combine(velocities["conditional"], velocities["unconditional"], scale)

    def attach(self, *interventions: Intervention) -> AbstractContextManager[None]:
        return self._attachments.attach(*interventions)

    @contextmanager
    def adapting(self, weights: Sequence[float]) -> Generator[None]:
        checked, before = checked_weights(self.pipeline.transformer, weights), self._adapters
        with self._attachments.attach():  # nobody else's passes come between
            self._adapters = checked
            try:
                yield
            finally:
                self._adapters = before

    def why_whole(self, *, states_on_path: bool = True) -> str | None:
        family = self.family
        if processes_of(self.pipeline.transformer) > 1:
            return "the pass is spread over processes, each with a band of the picture"
        if any(blocks.outside is None for blocks in family.blocks):
            return f"{family.name} does not say how its attention reads tokens that are not computed"
        if family.refines and not states_on_path:
            return f"image tokens of {family.name} meet before the first layer, off the source's path with this solver"
        if self._attachments.busy:
            return "something else is attached to the model, which would see a part of the picture"
        others = attention_kernels(self.pipeline.transformer) - READ_BY
        return f"attention is computed by {sorted(others)[0]!r}, which takes no more keys" if others else None

    def following(self, times: Sequence[float] = ()) -> AbstractContextManager[None]:
        """Open a block in which what is attached acts on the pipeline's own calls of its transformer as well.

        Args:
            times: The flow times that passes may have, so that rounded ones are told; any where empty.

        Raises:
            InterventionError: Calls of this pipeline cannot be read.
        """
        read, guided = self.family.call, self.family.guidance(self.pipeline)
        if read is None or guided.classifier_free:
            raise InterventionError(
                f"Calls that a {type(self.pipeline).__name__} makes by itself cannot be followed: which branch of "
                "guidance they are of, or where their tokens are, is not told yet. Use model.velocity, or an editor."
            )

        def layout(call: Call, given: Mapping[str, Any]) -> TokenLayout:
            whole = self.family.layout(call.rows, call.columns, self.family.text_tokens(given))
            return banded(whole, self.pipeline.transformer)

        return following(self.pipeline.transformer, self._attachments, read, layout, times)

    def _pass(
        self,
        latents: Latents,
        t: float,
        conditioning: Conditioning,
        branches: tuple[Branch, ...],
        guidance: Tensor | None,
    ) -> dict[Branch, Latents]:
        """One call of the transformer: the velocities of these branches, stacked along its batch."""
        family, transformer, (batch, _, height, width) = self.family, self.pipeline.transformer, latents.shape
        tensors = tensors_of(conditioning, branches)
        patch, device = self._sizes.patch, self.device
        layout = family.layout(height // patch, width // patch, family.text_tokens(tensors))
        timestep = (torch.tensor(t, dtype=torch.float32, device=device) * TIMESTEPS).expand(batch * len(branches))
        stacked = latents.to(device, self.dtype).repeat(len(branches), 1, 1, 1)
        inputs = family.inputs(Pass(stacked, timestep, guidance, layout, tensors))
        layout = banded(self._attachments.divided(layout, device), transformer)
        with ExitStack() as stack:
            stack.enter_context(self._attachments.forward(t, layout, batch, branches=branches))
            stack.enter_context(_cache_context(transformer, branches))
            stack.enter_context(thinned(self.layers, layout) if layout.division else nullcontext())
            stack.enter_context(self._switched(batch, len(branches)))
            output = transformer(**inputs, return_dict=False)[0]
        if TOKENS in tensors:
            output = output[:, : layout.image_rows * layout.image_columns]
        return dict(zip(branches, family.unpack(output, layout.image_rows).chunk(len(branches))))

    def _switched(self, rows: int, branches: int) -> AbstractContextManager[None]:
        if self._adapters is None:
            return nullcontext()
        return adapter_rows(self.pipeline.transformer, row_weights(self._adapters, rows, branches, self.device))

    def _image_tokens(self, height: int, width: int) -> int:
        self.check_size(height, width)
        return (height // self.pixel_multiple) * (width // self.pixel_multiple)

    @property
    def _sizes(self) -> Sizes:
        return self.family.sizes(self.pipeline)


def _words(pipeline: Any, family: Family, text_tokens: int, prompt: str) -> tuple[Word, ...]:
    """Return the words of a prompt that the transformer reads, in order, with their text tokens."""
    return split_words(prompt, *[reader for reader in family.readers(pipeline, text_tokens) if reader.joint])


def _cache_context(transformer: Any, branches: Sequence[Branch]) -> AbstractContextManager[None]:
    """diffusers' step caches ask which branch a pass is of."""
    if not hasattr(transformer, "cache_context"):
        return nullcontext()
    return transformer.cache_context("cond" if "conditional" in branches else "uncond")
