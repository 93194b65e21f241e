"""What the editors share that need of a source its picture alone, and find noise or inversion for themselves.

They take any source, drawn or real, of whichever editor: where it came from on the way to its picture does not matter.
"""

import dataclasses
import time
import zlib
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from stableflow.editing.base import Editor, describe_editor
from stableflow.editing.fingerprint import ENCODED, Fingerprint, digest
from stableflow.editing.passes import (
    CountedVelocity,
    decode,
    dtype_name,
    encode_prompts,
    require_same_model,
    standard_noise,
)
from stableflow.editing.result import EditResult
from stableflow.editing.sampling import checked_guidance
from stableflow.editing.source import Source
from stableflow.editing.stable_flow import StableFlow
from stableflow.editing.versions import versions
from stableflow.errors import InputError
from stableflow.flow.time_grid import TimeGrid
from stableflow.flow.trajectory import Trajectory
from stableflow.images import PictureLike, prepare
from stableflow.models.base import Conditioning
from stableflow.types import Latents


def draw(
    editor: Editor,
    prompt: str | Conditioning,
    *,
    seed: int | None = None,
    num_steps: int = 15,
    height: int | None = None,
    width: int | None = None,
) -> Source:
    """Draw a source picture, the one that `StableFlow.generate` draws from this seed; the editors' `generate`."""
    plain = StableFlow(editor.model, layers=())
    return plain.generate(prompt, seed=seed, num_steps=num_steps, height=height, width=width)


def encode(
    editor: Editor,
    image: PictureLike,
    prompt: str | Conditioning,
    *,
    height: int | None = None,
    width: int | None = None,
) -> Source:
    """Take a real picture as a source by encoding it, without its noise; the editors' `invert`.

    What needs an inversion runs it while editing, with the settings of the editor.

    Args:
        image: A file, a PIL image, or a tensor (3, height, width) in [0, 1].
        prompt: What the picture shows, or its conditioning.
        height, width: Size to work at, in pixels; by default the picture's own, reduced to fit the model's usual size.

    Raises:
        ImageError: The picture cannot be read.
    """
    model, conditioning = editor.model, encode_prompts(editor.model, prompt)
    picture = prepare(
        image, multiple=model.pixel_multiple, max_side=max(model.default_size), height=height, width=width
    )
    clean = model.encode_image(picture.pixels)
    trajectory = Trajectory()
    trajectory.put(0.0, clean)
    fingerprint = Fingerprint(
        model=model.name,
        checkpoint=model.checkpoint_hash(),
        dtype=dtype_name(model),
        prompt=conditioning.prompts[0],
        conditioning=digest(*conditioning.tensors.values()),
        seed=None,
        image=digest(picture.pixels),
        height=picture.pixels.shape[-2],
        width=picture.pixels.shape[-1],
        times=trajectory.times,
        guidance_scale=None,
        solver={},
        inversion=ENCODED,
        nudge_scale=1.0,
        layers=(),
        modifications=model.modifications,
    )
    images = decode(model, clean, picture.content_size)
    return Source(fingerprint, conditioning, trajectory, {}, None, images, picture.alpha, nfe=0)


class Run:
    """One call of an editor's `edit`: what it starts from, what it counts, what it returns.

    Args:
        editor: A frozen dataclass of its model and settings.
        source: From any editor over the same checkpoint.
        prompts: One or more edited prompts, or their conditioning.

    Raises:
        FingerprintError: The source belongs to another checkpoint or dtype.
        InputError: There is no prompt, or one is empty.
    """

    def __init__(self, editor: Editor, source: Source, prompts: str | Sequence[str] | Conditioning):
        self._started = time.perf_counter()
        self._editor, self._model = editor, editor.model
        require_same_model(self._model, source)
        self.source = source.to(self._model.device)
        self.edits = encode_prompts(self._model, prompts)
        self._velocities: list[CountedVelocity] = []

    @property
    def clean(self) -> Latents:
        """The latents of the source picture, (1, channels, latent_height, latent_width)."""
        return self.source.latents

    def rows(self, latents: Float[Tensor, "1 *shape"]) -> Float[Tensor, "edits *shape"]:
        """Return one row an edit."""
        return latents.expand(len(self.edits), -1, -1, -1)

    def grid(self, num_steps: int) -> TimeGrid:
        """Return the model's times from noise to image at the source's size."""
        return self._model.time_grid(num_steps, self.source.fingerprint.height, self.source.fingerprint.width)

    def generator(self, seed: int | None) -> torch.Generator:
        """Return the CPU generator of this run's noise.

        Args:
            seed: When None, one that follows from what made the source: the same source gets the same noise, which is
                not the noise that it was drawn from.
        """
        made_from = (self.source.fingerprint.seed, self.source.fingerprint.image)
        return torch.Generator("cpu").manual_seed(zlib.crc32(repr(made_from).encode()) if seed is None else seed)

    def noise(self, generator: torch.Generator) -> Latents:
        """Return the generator's next noise of the source's shape; edits share it, so they do not depend on others."""
        return standard_noise(generator, self.clean.shape, self._model.device)

    def guidance(self, scale: float | None) -> float | None:
        """Return the scale to use: the model's usual one when None, none where the model takes none."""
        return checked_guidance(scale, self._model.default_guidance_scale)

    def velocity(self, conditioning: Conditioning, guidance_scale: float | Sequence[float] | None) -> CountedVelocity:
        """Return the model's velocity; its evaluations are counted."""
        self._velocities.append(CountedVelocity(self._model, conditioning, guidance_scale))
        return self._velocities[-1]

    def result(self, latents: Latents) -> EditResult:
        """Decode the edits and write down what made them."""
        recipe = {
            "editor": describe_editor(self._editor),
            "source": dataclasses.asdict(self.source.fingerprint),
            "edits": list(self.edits.prompts),
            "nfe": {"source": self.source.nfe, "edit": sum(velocity.nfe for velocity in self._velocities)},
            "seconds": round(time.perf_counter() - self._started, 3),
            "versions": versions(),
        }
        images = decode(self._model, latents, self.source.images.shape[-2:])
        return EditResult(self.edits.prompts, images, latents, self.source, recipe)


def check_num_steps(num_steps: int) -> None:
    """Raise unless there is at least one step."""
    if num_steps < 1:
        raise InputError(f"num_steps must be 1 or more, got {num_steps}.")


def check_share(name: str, value: float) -> None:
    """Raise unless a setting lies in [0, 1]."""
    if not 0.0 <= value <= 1.0:
        raise InputError(f"{name} must lie in [0, 1], got {value}.")
