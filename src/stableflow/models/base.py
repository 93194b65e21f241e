"""One view of any multimodal diffusion transformer: what the rest of the package may know of a model."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from stableflow.errors import InputError, TokenLayoutError
from stableflow.flow.time_grid import TimeGrid
from stableflow.models.hooks import (
    PARTS,
    AttentionHook,
    BlockHook,
    Branch,
    CallHook,
    Division,
    Forward,
    Intervention,
    Layer,
    OutsideHook,
    Part,
    ProjectionHook,
    TokenLayout,
)
from stableflow.types import Images, Latents

__all__ = [
    "PARTS",
    "Adaptable",
    "AttentionHook",
    "BlockHook",
    "Branch",
    "CallHook",
    "Conditioning",
    "Division",
    "FlowModel",
    "Forward",
    "Guidance",
    "Intervention",
    "Layer",
    "LeavesOut",
    "OutsideHook",
    "Part",
    "ProjectionHook",
    "ShowsAttention",
    "TokenLayout",
    "Word",
]

Guidance = float | Sequence[float] | None


@dataclass(frozen=True)
class Conditioning:
    """Encoded prompts; every tensor is batch first, one row a prompt.

    Args:
        prompts: The texts, empty strings where only embeddings were given.
        tensors: What the family's transformer takes, by its own names. Under classifier-free guidance the same again
            for the negative prompt, with names that start with `negative_`. A tensor `x` beside which there is an
            `x_mask` (1 for a word, 0 for padding) may be padded to a longer text.
    """

    prompts: tuple[str, ...]
    tensors: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(self.prompts)

    def to(self, device: torch.device | str) -> "Conditioning":
        """Return the conditioning with its tensors on a device."""
        return Conditioning(self.prompts, {name: tensor.to(device) for name, tensor in self.tensors.items()})

    @staticmethod
    def concat(parts: Sequence["Conditioning"]) -> "Conditioning":
        """Stack conditionings along the batch; tensors that have a mask are padded to the longest text.

        Raises:
            TokenLayoutError: Their text lengths differ and cannot be padded.
            InputError: They hold different tensors.
        """
        names = parts[0].tensors
        for part in parts[1:]:
            if set(part.tensors) != set(names):
                raise InputError(
                    f"Prompts that share a batch need the same tensors; one has {sorted(names)}, another "
                    f"{sorted(part.tensors)}. Encode them with the same model, negative prompts included; a reference "
                    "picture of some rows alone needs kv_memory other than 'share'."
                )
        return Conditioning(
            tuple(prompt for part in parts for prompt in part.prompts),
            {name: _stack(name, [part.tensors[name] for part in parts], _may_be_padded(name, names)) for name in names},
        )


def _may_be_padded(name: str, names: Collection[str]) -> bool:
    base = name.removesuffix("_mask")
    return base in names and f"{base}_mask" in names


def _stack(name: str, tensors: Sequence[Tensor], pad: bool) -> Tensor:
    if pad:
        longest = max(tensor.shape[1] for tensor in tensors)
        tensors = [_padded(tensor, longest) for tensor in tensors]
    shapes = {tuple(tensor.shape[1:]) for tensor in tensors}
    if len(shapes) > 1:
        raise TokenLayoutError(
            f"Prompts that share a batch need one text length; {name} is {sorted(shapes)}. Load the model "
            "with the max_sequence_length that the source was made with."
        )
    return torch.cat(list(tensors))


def _padded(tensor: Tensor, length: int) -> Tensor:
    missing = tensor.new_zeros(tensor.shape[0], length - tensor.shape[1], *tensor.shape[2:])
    return torch.cat([tensor, missing], dim=1)


@dataclass(frozen=True)
class Word:
    """A word of a prompt and the text tokens that carry it, by position in the text stream."""

    text: str
    tokens: tuple[int, ...]


@runtime_checkable
class FlowModel(Protocol):
    """A text-to-image model as a velocity field over unpacked latents."""

    name: str

    @property
    def layers(self) -> Sequence[Layer]:
        """Every block in execution order; layers[i].index == i."""
        ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def pixel_multiple(self) -> int:
        """Height and width in pixels must be multiples of this."""
        ...

    @property
    def modifications(self) -> tuple[str, ...]:
        """What was changed in the checkpoint after it was published: adapters, quantisation."""
        ...

    @property
    def default_size(self) -> tuple[int, int]:
        """Height and width in pixels when none are given."""
        ...

    @property
    def default_guidance_scale(self) -> float | None:
        """The usual guidance scale; None where the model takes none."""
        ...

    def checkpoint_hash(self) -> str:
        """Return a digest that changes when the transformer's weights or adapters do."""
        ...

    def check_size(self, height: int, width: int) -> None:
        """Raise InputError unless the model can run at this size in pixels."""
        ...

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Return (channels, latent_height, latent_width)."""
        ...

    def kv_bytes(self, height: int, width: int) -> int:
        """Return the most bytes that one layer's image keys and values of one row take in one pass, all branches."""
        ...

    def encode_prompt(self, prompts: Sequence[str]) -> Conditioning: ...

    def encode_image(self, images: Images) -> Latents:
        """Return the VAE's mean, shifted and scaled; images are in [0, 1]."""
        ...

    def decode_latents(self, latents: Latents) -> Images:
        """Return images in [0, 1]."""
        ...

    def time_grid(self, num_steps: int, height: int, width: int) -> TimeGrid:
        """Return the scheduler's own shifted sigmas, from 1 to 0."""
        ...

    def velocity(self, latents: Latents, t: float, conditioning: Conditioning, *, guidance_scale: Guidance) -> Latents:
        """Return dz/dt = noise - image at flow time t; guidance is a scalar or one a row."""
        ...

    def attach(self, *interventions: Intervention) -> AbstractContextManager[None]:
        """Open a block in which the interventions act; the model is left exactly as it was found."""
        ...


@runtime_checkable
class Differentiable(FlowModel, Protocol):
    """A model through whose passes gradients reach latents and conditioning."""

    def velocity_with_grad(
        self, latents: Latents, t: float, conditioning: Conditioning, *, guidance_scale: Guidance
    ) -> Latents:
        """Return the same as `velocity`."""
        ...


@runtime_checkable
class Adaptable(FlowModel, Protocol):
    """A model whose LoRA adapters can be switched row by row."""

    def adapting(self, weights: Sequence[float]) -> AbstractContextManager[None]:
        """Open a block in which row i of every pass has weights[i] of the adapters: 0 is the model without them."""
        ...


@runtime_checkable
class LeavesOut(FlowModel, Protocol):
    """A model whose passes may compute some image tokens only, reading keys and values of the others."""

    def why_whole(self, *, states_on_path: bool = True) -> str | None:
        """Return why passes must compute every token now; None where they may leave tokens out.

        Args:
            states_on_path: Latents of the tokens left out are those that their keys and values were recorded at, in
                every evaluation of the solver.
        """
        ...


@runtime_checkable
class ShowsAttention(FlowModel, Protocol):
    """A model whose attention can be captured: its layers have `watch`, and its layouts `joint_start`."""

    def words(self, prompt: str) -> Sequence[Word]:
        """Return the words of a prompt that the transformer reads, in order, with their text tokens."""
        ...
