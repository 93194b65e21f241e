"""A source: a picture, its prompt, and the path from its noise that edits need; kept, saved and loaded."""

import dataclasses
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from stableflow.checks import check_path
from stableflow.editing.fingerprint import Fingerprint
from stableflow.editing.path import Path
from stableflow.flow.inversion import unnudge
from stableflow.flow.time_grid import TimeGrid
from stableflow.flow.trajectory import Trajectory
from stableflow.interventions.store import KVStore
from stableflow.models.base import Conditioning
from stableflow.types import Images, Latents


@dataclass(frozen=True, eq=False)
class Source:
    """A generated, inverted or encoded picture.

    Args:
        fingerprint: The settings that all of this belongs to.
        conditioning: Its encoded prompt.
        path: Its own way between noise and image; of a picture that was only encoded, the image alone.
        images: The picture as the model draws it, in [0, 1], padding cut off.
        alpha: Opacity of the given picture, if it had any.
        nfe: Model evaluations that making it took.
        given: The picture that was given, in [0, 1], of the size of `images`; None where it was drawn.
        kept: What editors have worked out for this source and need again: paths of other settings.
    """

    fingerprint: Fingerprint
    conditioning: Conditioning
    path: Path
    images: Images
    alpha: Float[Tensor, "height width"] | None
    nfe: int
    given: Images | None = None
    kept: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    @property
    def grid(self) -> TimeGrid:
        """The flow times from noise to image."""
        return TimeGrid(self.fingerprint.times)

    @property
    def trajectory(self) -> Trajectory:
        """Its states by flow time, float32, (1, channels, latent_height, latent_width)."""
        return self.path.trajectory

    @property
    def offsets(self) -> Mapping[float, Tensor]:
        """What aligned replay adds at each time; empty for a generated source and under inversion="paper"."""
        return self.path.offsets

    @property
    def store(self) -> KVStore | None:
        """Its image keys and values; None when the source shares the batch with its edits."""
        return self.path.store

    @property
    def noise(self) -> Latents:
        """Its state at the start of sampling, float32."""
        return self.path.at(self.fingerprint.times[0])

    @property
    def latents(self) -> Latents:
        """Its final latents, nudging undone, float32."""
        return unnudge(self.path.at(0.0), self.fingerprint.nudge_scale)

    def keep(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return what was made for this source under `key`, making it the first time."""
        if key not in self.kept:
            self.kept[key] = make()
        return self.kept[key]

    def to(self, device: torch.device | str) -> "Source":
        """Return the source with states and conditioning on a device; keys and values stay where they are."""
        return dataclasses.replace(self, conditioning=self.conditioning.to(device), path=self.path.to(device))

    def save(self, folder: str | FilePath) -> None:
        """Write the session as `source.safetensors` and `source.json`; each appears whole or not at all."""
        from stableflow.editing.session_files import save_source

        save_source(self, check_path("folder", folder))

    @staticmethod
    def load(folder: str | FilePath, *, device: torch.device | str = "cpu") -> "Source":
        """Read a saved session.

        Args:
            folder: Where `save` wrote it.
            device: Where its tensors go; the model's device makes edits quickest.

        Raises:
            LoadError: A file is missing, damaged or of another version, or the two do not belong together.
        """
        from stableflow.editing.session_files import load_source

        return load_source(check_path("folder", folder), device=device)
