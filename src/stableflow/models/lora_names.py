"""Which module of a pipeline a LoRA file means by a name."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from stableflow.models.flux_names import Place, flux_places

PREFIXES = (
    "base_model.model.", "transformer.", "diffusion_model.", "model.diffusion_model.", "model.",
    "lora_transformer_", "lora_unet_", "lycoris_",
)  # fmt: skip
TEXT_ENCODERS = {"lora_te1_": "text_encoder", "lora_te_": "text_encoder", "text_encoder.": "text_encoder"}


class LoraModules:
    """Finds modules by the names that LoRA files give them."""

    def __init__(self, pipeline: Any):
        self._parts = {"transformer": pipeline.transformer, "text_encoder": getattr(pipeline, "text_encoder", None)}
        self._named = {part: dict(model.named_modules()) for part, model in self._parts.items() if model is not None}
        self._joined = {part: {name.replace(".", "_"): name for name in named} for part, named in self._named.items()}
        config = pipeline.transformer.config
        flux = type(pipeline.transformer).__name__ == "FluxTransformer2DModel"
        self._flux: Mapping[str, tuple[Place, ...]] = flux_places(config) if flux else {}
        self._flux_joined = {name.replace(".", "_"): name for name in self._flux}

    def places(self, name: str) -> tuple[Place, ...]:
        """The modules that an update goes to, by part and name, with the rows that each takes; empty if unknown."""
        for prefix, part in TEXT_ENCODERS.items():
            if name.startswith(prefix):
                return self._own(part, name.removeprefix(prefix))
        for short in _stripped(name):
            short = self._flux_joined.get(short, short)
            if short in self._flux:
                return tuple((f"transformer.{module}", rows) for module, rows in self._flux[short])
            if found := self._own("transformer", short):
                return found
        return ()

    def _own(self, part: str, name: str) -> tuple[Place, ...]:
        for candidate in (name, name.removeprefix("text_model.").removeprefix("text_model_")):
            own = self._joined.get(part, {}).get(candidate.replace(".", "_"))
            if own and isinstance(self._named[part][own], nn.Linear):
                return ((f"{part}.{own}", lambda tensor: tensor),)
        return ()

    def module(self, name: str) -> nn.Module:
        part, _, module = name.partition(".")
        return self._named[part][module]


def _stripped(name: str) -> Iterator[str]:
    """A name without the prefixes that tools put before it, one after the other."""
    yield name
    while prefix := next((prefix for prefix in PREFIXES if name.startswith(prefix)), None):
        name = name.removeprefix(prefix)
        yield name
