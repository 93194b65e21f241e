"""What made a source; using it under other settings is refused."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from stableflow.errors import FingerprintError, InputError

ENCODED = "encoded"
"""`Fingerprint.inversion` of a picture that was only encoded: it has latents, and its path is made when asked for."""


@dataclass(frozen=True)
class Fingerprint:
    """The settings that a source's path, keys and values belong to: all that decides its numbers.

    Args:
        model, checkpoint, dtype: Name, weight digest and compute type of the model.
        prompt, conditioning: The source prompt, and a digest of its embeddings.
        seed, image: The noise's seed (None if latents were given), or a digest of the picture's pixels.
        height, width, times: Size in pixels, padding included, and the grid, from noise to image.
        guidance_scale, solver: Of the source's own passes.
        inversion, nudge_scale: "aligned", "paper", "encoded" for a picture without its path, or None for a generated
            source; factor on the image latents.
        layers: Where keys and values were recorded.
        modifications: Adapters and quantisation of the model.
        text_length: Most text tokens of a prompt, where the model has such a setting.
        picture: Height and width of the picture within the padding.
        noise: A digest of latents that were given as noise.
    """

    model: str
    checkpoint: str
    dtype: str
    prompt: str
    conditioning: str
    seed: int | None
    image: str | None
    height: int
    width: int
    times: tuple[float, ...]
    guidance_scale: float | None
    solver: Mapping[str, Any]
    inversion: str | None
    nudge_scale: float
    layers: tuple[int, ...]
    modifications: tuple[str, ...]
    text_length: int | None = None
    picture: tuple[int, int] | None = None
    noise: str | None = None

    @property
    def num_steps(self) -> int:
        return len(self.times) - 1

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def differences(self, **expected: Any) -> list[str]:
        """Return what differs from the expected values of any of this class's fields, or of `num_steps`, in words.

        Raises:
            InputError: A source has no such field.
        """
        known = {field.name for field in dataclasses.fields(self)} | {"num_steps"}
        unknown = set(expected) - known
        if unknown:
            raise InputError(f"A source has no {sorted(unknown)}; it can be compared by {sorted(known)}.")
        own = {name: getattr(self, name) for name in expected}
        return [
            f"{name} is {own[name]!r} there and {value!r} here"
            for name, value in expected.items()
            if own[name] != value
        ]

    def require(self, **expected: Any) -> None:
        """Compare with what the caller is about to assume; see `differences`.

        Raises:
            FingerprintError: Names every difference.
        """
        differences = self.differences(**expected)
        if differences:
            raise FingerprintError(
                "The source was made under other settings: " + "; ".join(differences) + ". Its keys and values would "
                "be wrong here. Use the source's settings, or make the source again with these."
            )


def digest(*tensors: Tensor) -> str:
    """Return a short digest of the tensors' values."""
    hasher = hashlib.sha256()
    for tensor in tensors:
        hasher.update(np.ascontiguousarray(tensor.detach().float().cpu().numpy()).tobytes())
    return hasher.hexdigest()[:16]
