"""Public checkpoints by the names people use: where they are, under which licence, and what they weigh."""

from collections.abc import Mapping
from dataclasses import dataclass, field

VAE_BILLIONS = 0.084
T5_CLIP: Mapping[str, float] = {"text_encoder": 0.123, "text_encoder_2": 4.76}
CLIP_CLIP_T5: Mapping[str, float] = {"text_encoder": 0.124, "text_encoder_2": 0.695, "text_encoder_3": 4.76}
NON_COMMERCIAL = "FLUX.1 [dev] Non-Commercial"


@dataclass(frozen=True)
class Known:
    """One public checkpoint.

    Args:
        repository: Its hub id.
        pipeline: diffusers' class of it.
        licence: Of the weights; ask their makers what it allows.
        gated: Whether the hub asks to accept terms before it gives the files.
        steps: Solver steps that its makers recommend.
        guidance: Guidance scale that goes with them, as this library counts it.
        billions: Parameters by part, in 10^9.
        width: Numbers of one token between the transformer's layers.
        largest: Share of the transformer's parameters in its largest layer.
    """

    repository: str
    pipeline: str
    licence: str
    gated: bool
    steps: int
    guidance: float
    billions: Mapping[str, float] = field(repr=False)
    width: int
    largest: float

    @property
    def commercial(self) -> bool:
        """Whether the licence's name says nothing against commercial use."""
        return "Non-Commercial" not in self.licence


def _flux(repository: str, licence: str, gated: bool, steps: int, guidance: float, kind: str = "FluxPipeline") -> Known:
    billions = {"transformer": 11.90, **T5_CLIP, "vae": VAE_BILLIONS}
    return Known(f"black-forest-labs/{repository}", kind, licence, gated, steps, guidance, billions, 3072, 0.0286)


KNOWN: Mapping[str, Known] = {
    "flux-dev": _flux("FLUX.1-dev", NON_COMMERCIAL, True, 28, 3.5),
    "flux-schnell": _flux("FLUX.1-schnell", "Apache-2.0", True, 4, 1.0),
    "flux-krea": _flux("FLUX.1-Krea-dev", NON_COMMERCIAL, True, 28, 4.5),
    "kontext": _flux("FLUX.1-Kontext-dev", NON_COMMERCIAL, True, 28, 2.5, "FluxKontextPipeline"),
    "flux2-dev": Known(
        "black-forest-labs/FLUX.2-dev", "Flux2Pipeline", "FLUX [dev] Non-Commercial v2", True, 50, 4.0,
        {"transformer": 32.22, "text_encoder": 24.0, "vae": VAE_BILLIONS}, 6144, 0.0305,
    ),
    "klein-4b": Known(
        "black-forest-labs/FLUX.2-klein-4B", "Flux2KleinPipeline", "Apache-2.0", False, 4, 1.0,
        {"transformer": 3.876, "text_encoder": 4.02, "vae": VAE_BILLIONS}, 3072, 0.0633,
    ),
    "klein-9b": Known(
        "black-forest-labs/FLUX.2-klein-9B", "Flux2KleinPipeline", "FLUX Non-Commercial", True, 4, 1.0,
        {"transformer": 9.079, "text_encoder": 8.19, "vae": VAE_BILLIONS}, 4096, 0.0481,
    ),
    "sd3.5-medium": Known(
        "stabilityai/stable-diffusion-3.5-medium", "StableDiffusion3Pipeline", "Stability AI Community", True, 40, 4.5,
        {"transformer": 2.243, **CLIP_CLIP_T5, "vae": VAE_BILLIONS}, 1536, 0.0453,
    ),
    "sd3.5-large": Known(
        "stabilityai/stable-diffusion-3.5-large", "StableDiffusion3Pipeline", "Stability AI Community", True, 28, 3.5,
        {"transformer": 8.057, **CLIP_CLIP_T5, "vae": VAE_BILLIONS}, 2432, 0.0265,
    ),
    "qwen-image": Known(
        "Qwen/Qwen-Image", "QwenImagePipeline", "Apache-2.0", False, 50, 4.0,
        {"transformer": 20.43, "text_encoder": 8.29, "vae": 0.127}, 3072, 0.0166,
    ),
    "z-image": Known(
        "Tongyi-MAI/Z-Image-Turbo", "ZImagePipeline", "Apache-2.0", False, 9, 1.0,
        {"transformer": 6.155, "text_encoder": 4.02, "vae": VAE_BILLIONS}, 3840, 0.0295,
    ),
    "chroma": Known(
        "lodestones/Chroma1-HD", "ChromaPipeline", "Apache-2.0", False, 40, 3.0,
        {"transformer": 8.900, "text_encoder": 4.76, "vae": VAE_BILLIONS}, 3072, 0.0255,
    ),
}  # fmt: skip
"""By the short names that `load` and `--model` take."""


def known_by(name: str) -> Known | None:
    """Return the checkpoint of this short name or hub id, if it is one of `KNOWN`."""
    return KNOWN.get(name) or next((known for known in KNOWN.values() if known.repository == name), None)
