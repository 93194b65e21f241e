"""Which module of a pipeline a LoRA file means by a name."""

from collections.abc import Iterator
from typing import Any

from torch import nn

from stableflow.models.authors_names import Places, authors_places
from stableflow.models.flux_names import Place

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
        transformer = pipeline.transformer
        self._authors: Places = authors_places(type(transformer).__name__, transformer.config)
        self._authors_joined = {name.replace(".", "_"): name for name in self._authors}

    def names(self) -> list[str]:
        """The transformer's modules that may be updated, the first ones first."""
        return [name for name, module in self._named["transformer"].items() if _is_linear(module)]

    def places(self, name: str) -> tuple[Place, ...]:
        """The modules that an update goes to, by part and name, with the rows that each takes; empty if unknown."""
        for prefix, part in TEXT_ENCODERS.items():
            if name.startswith(prefix):
                return self._own(part, name.removeprefix(prefix))
        for short in _stripped(name):
            short = self._authors_joined.get(short, short)
            if short in self._authors:
                return tuple((f"transformer.{module}", rows) for module, rows in self._authors[short])
            if found := self._own("transformer", short):
                return found
        return ()

    def _own(self, part: str, name: str) -> tuple[Place, ...]:
        for candidate in (name, name.removeprefix("text_model.").removeprefix("text_model_")):
            own = self._joined.get(part, {}).get(candidate.replace(".", "_"))
            if own and _is_linear(self._named[part][own]):
                return ((f"{part}.{own}", lambda tensor: tensor),)
        return ()

    def module(self, name: str) -> nn.Module:
        part, _, module = name.partition(".")
        return self._named[part][module]


def _is_linear(module: nn.Module) -> bool:
    """Also where another LoRA is on it, which peft wraps it for."""
    return isinstance(getattr(module, "base_layer", module), nn.Linear)


def _stripped(name: str) -> Iterator[str]:
    """A name without the prefixes that tools put before it, one after the other."""
    yield name
    while prefix := next((prefix for prefix in PREFIXES if name.startswith(prefix)), None):
        name = name.removeprefix(prefix)
        yield name
