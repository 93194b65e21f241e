"""Layers of a model as ComfyUI counts them (by kind) and as the library does (in execution order)."""

import re
from dataclasses import dataclass
from typing import Any

from stableflow.errors import InputError, UnknownNameError
from stableflow.vital.presets import Preset, all_presets

KINDS = {"double": ("double_blocks", "transformer_blocks"), "single": ("single_blocks",)}
SEAMS = "FLUX.1, FLUX.2, Chroma and Qwen-Image"
LAYERS = re.compile(r"(?:(double|single)\s*:\s*)?([\d\s,]+)")


@dataclass(frozen=True)
class Numbering:
    """How many double and single blocks a model has; layers run through the double ones first."""

    doubles: int
    singles: int

    @staticmethod
    def of(transformer: Any) -> "Numbering":
        """Return the numbering of ComfyUI's `diffusion_model`.

        Raises:
            InputError: Its blocks have no attention patches that tell where the image tokens are.
        """
        counts = [sum(len(getattr(transformer, name, ())) for name in names) for names in KINDS.values()]
        if not counts[0]:
            raise InputError(
                f"This model is a {type(transformer).__name__}, and ComfyUI gives packs no access to the keys and "
                f"values of its image tokens. It does for {SEAMS}."
            )
        return Numbering(*counts)

    @property
    def total(self) -> int:
        return self.doubles + self.singles

    def index(self, kind: str, block: int) -> int:
        """Return a block's place in execution order."""
        return block if kind == "double" else self.doubles + block

    def block(self, index: int) -> tuple[str, int]:
        """Return kind and number of the layer at this place."""
        return ("double", index) if index < self.doubles else ("single", index - self.doubles)

    def parse(self, text: str) -> tuple[int, ...]:
        """Read layers: "0, 1, 17", or by kind "double: 0, 1, 17; single: 6", or "all".

        Raises:
            InputError: It is none of these, or a layer is not there.
        """
        if text.strip() == "all":
            return tuple(range(self.total))
        chosen: list[int] = []
        for part in filter(None, (part.strip() for part in text.split(";"))):
            match = LAYERS.fullmatch(part)
            numbers = re.findall(r"\d+", match[2]) if match else []
            if not match or not numbers:
                raise InputError(
                    f"{part!r} is no list of layers. Write numbers in execution order (0, 1, 17), or by kind "
                    "(double: 0, 1; single: 6), or all."
                )
            chosen += [self._checked(match[1], int(number)) for number in numbers]
        return tuple(sorted(set(chosen)))

    def _checked(self, kind: str | None, number: int) -> int:
        count = {None: self.total, "double": self.doubles, "single": self.singles}[kind]
        if number >= count:
            raise InputError(
                f"Layer {number} is out of range: this model has {self.doubles} double and {self.singles} single "
                f"layers, {kind or 'all'} 0 to {count - 1}."
            )
        return number if kind is None else self.index(kind, number)


def preset_names() -> list[str]:
    """Return the names of the vital sets that the library ships."""
    return [preset.names[0] for preset in all_presets()]


def find_layers(name: str, numbering: Numbering) -> tuple[int, ...]:
    """Return a shipped vital set.

    Raises:
        UnknownNameError: There is none of this name.
        InputError: It belongs to a model with another number of layers.
    """
    known: dict[str, Preset] = {preset.names[0]: preset for preset in all_presets()}
    if name not in known:
        raise UnknownNameError(f"There is no vital set {name!r}; known are {', '.join(known)}.")
    preset = known[name]
    if preset.num_layers != numbering.total:
        raise InputError(
            f"The vital set of {name} is for {preset.num_layers} layers and this model has {numbering.total}. A set "
            "holds for one checkpoint: choose another, write the layers, or measure them with Measure vital layers."
        )
    return preset.layers
