"""Everything that an edit run can be told, from the command line, a YAML file or the recipe in a PNG."""

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from stableflow.editing.presets import SpeedPreset, make_preset
from stableflow.errors import InputError


class EditSettings(BaseModel):
    """One edit run. Names are those of the command line's options and of the YAML file's keys."""

    model_config = ConfigDict(extra="forbid")

    model: str = "tiny"
    prompt: str | None = None
    image: Path | None = None
    to: list[str] = Field(default_factory=list)
    seed: int | None = None
    steps: int | None = None
    guidance: float | None = None
    edit_guidance: float | list[float] | None = None
    height: int | None = None
    width: int | None = None
    layers: Literal["vital"] | list[int] = "vital"
    weight: float = 1.0
    window: tuple[float, float] = (0.0, 1.0)
    solver: str | dict[str, Any] | None = None
    inversion: Literal["aligned", "paper"] | None = None
    preset: str | dict[str, Any] | None = None
    nudge: float | None = None
    keep: Literal["auto", "device", "cpu", "share"] = "auto"
    max_sequence_length: int | None = None
    image_digest: str | None = None

    @field_validator("layers", mode="before")
    @classmethod
    def _split_layers(cls, value: Any) -> Any:
        if isinstance(value, str) and value != "vital":
            return [part.strip() for part in value.split(",") if part.strip()]
        return value

    @field_validator("window", mode="before")
    @classmethod
    def _split_window(cls, value: Any) -> Any:
        return value.split(",") if isinstance(value, str) else value

    def speed(self) -> SpeedPreset:
        """Return the preset that is named or described, the exact one when none is.

        Raises:
            UnknownNameError: No preset has this name.
            InputError: What a recipe says of its preset is not known here.
        """
        if isinstance(self.preset, dict):
            try:
                return SpeedPreset(**self.preset)
            except TypeError as error:
                raise InputError(f"The preset of this run is of another version: {error}.") from error
        return make_preset(self.preset or "exact")


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the settings that a YAML run file gives.

    Raises:
        InputError: The file is missing, no YAML, or no mapping.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"The run file {path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"The run file {path} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"The run file {path} must hold 'name: value' lines, such as 'prompt: a dog on the grass'.")
    return content


def from_recipe(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that repeat the run behind a recipe."""
    try:
        source = recipe["source"]
        real = source["inversion"] is not None
        settings = {
            "model": source["model"],
            "prompt": source["prompt"],
            "to": recipe["edits"],
            "seed": source["seed"],
            "steps": len(source["times"]) - 1,
            "guidance": source["guidance_scale"],
            "edit_guidance": recipe["guidance_scale"],
            "layers": recipe["layers"],
            "weight": recipe["weight"],
            "window": recipe["t_window"],
            "solver": source["solver"],
            "preset": recipe.get("preset"),
            "image_digest": source["image"],
        }
        if real:
            return settings | {"inversion": source["inversion"], "nudge": source["nudge_scale"]}
        return settings | {"height": source["height"], "width": source["width"]}
    except (KeyError, TypeError) as error:
        raise InputError(f"The recipe in this picture is incomplete: {error} is missing.") from error


def make_settings(*layers: dict[str, Any]) -> EditSettings:
    """Merge settings, later ones winning, and check them.

    Raises:
        InputError: Names every setting that is unknown or out of place.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        merged |= {name: value for name, value in layer.items() if value is not None and value != []}
    try:
        settings = EditSettings.model_validate(merged)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc'][:1]))}: {e['msg']} (got {e['input']!r})" for e in error.errors()]
        known = ", ".join(EditSettings.model_fields)
        raise InputError("; ".join(dict.fromkeys(lines)) + f". Known settings: {known}.") from error
    _check_complete(settings)
    return settings


def _check_complete(settings: EditSettings) -> None:
    if settings.prompt is None:
        what = "what the picture shows" if settings.image else "the picture to draw"
        raise InputError(f"--prompt is missing: describe {what}, such as --prompt 'a dog standing on the grass'.")
    if not settings.to:
        raise InputError("--to is missing: give at least one edited prompt, such as --to 'a dog sitting on the grass'.")
    if settings.image is not None and settings.seed is not None:
        raise InputError("--seed draws a picture and --image gives one; leave one of them out.")
    if settings.image_digest is not None and settings.image is None:
        raise InputError("This run edited a picture file, which a recipe does not hold: give it again with --image.")
