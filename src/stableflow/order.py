"""One run as JSON: what the command line, a YAML file, a picture's recipe, an app or a request asks for."""

from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from stableflow.checks import LARGEST_GUIDANCE, LARGEST_SEED
from stableflow.editing import EDITORS, Editor
from stableflow.editing.fingerprint import digest
from stableflow.editing.least import AUTO
from stableflow.editing.path import LARGEST_NUDGE
from stableflow.editing.presets import SpeedPreset, make_preset
from stableflow.editing.recipe import settings_in
from stableflow.editing.result import EditResult
from stableflow.editing.source import Source
from stableflow.editing.tasks import as_task
from stableflow.editing.where import check_where
from stableflow.editing.wishes import Edit
from stableflow.errors import FingerprintError, InputError, unknown_name
from stableflow.flow.integrate import Callback
from stableflow.flow.solvers import describe_solver, make_solver
from stableflow.images import prepare
from stableflow.models.base import FlowModel

SHORT = {
    "strength": "strength", "negative": "negative", "layers": "layers", "weight": "weight", "window": "t_window",
    "keep": "kv_memory", "preset": "preset",
}  # fmt: skip
"""Settings of editors that an order may give by a name of their own instead of in `set`."""

OF_A_REPEATED_RUN = ("version", "expected", "image_digest", "reference_digests")
"""What nobody asks for: it comes from a recipe."""

DRAWN_STEPS, REAL_GUIDANCE = 15, 1.0
Strength = Annotated[float, Field(ge=0, le=1)]
Scale = Annotated[float, Field(ge=0, le=LARGEST_GUIDANCE, allow_inf_nan=False)]


class Order(BaseModel):
    """One edit run. Names are those of the command line's options and of a YAML file's keys.

    Args:
        model, dtype, max_sequence_length, lora, parts, quantise, quantise_text, components: What draws.
        prompt, image, seed, steps, guidance, height, width, solver, inversion, nudge: The source; to: edited prompts.
        editor, set, task: The method and its settings, or what is wanted, which chooses both and a region to look for.
        guidance_each, strength_each: Of single edits, one each, where it is not the editor's.
        region, keeping, together, exact: Where edits act, or words that stay; one picture or many; pixels kept outside.
        strength, negative, edit_guidance, layers, weight, window, keep, preset: Short for settings of the editor.
        reference: Pictures that the edits read, where the model was trained with them.
        image_digest, reference_digests, expected: Of a run that is repeated: its pictures, its source's fingerprint.
    """

    model_config = ConfigDict(extra="forbid")

    version: Literal[1] = 1
    model: str = "tiny"
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    max_sequence_length: int | None = Field(None, ge=1)
    lora: list[str] | None = None
    quantise: str | None = None
    quantise_text: str | None = None
    components: str | None = None
    parts: list[str] | None = None
    prompt: str | None = None
    image: Path | None = None
    seed: int | None = Field(None, ge=0, le=LARGEST_SEED)
    steps: int | None = Field(None, ge=1, le=10_000)
    guidance: Scale | None = None
    height: int | None = Field(None, ge=1, le=65_536)
    width: int | None = Field(None, ge=1, le=65_536)
    solver: str | dict[str, Any] | None = None
    inversion: Literal["aligned", "paper"] | None = None
    nudge: float | None = Field(None, gt=0, le=LARGEST_NUDGE, allow_inf_nan=False)
    to: list[str] = Field(default_factory=list)
    editor: str = "stable-flow"
    set: dict[str, Any] = Field(default_factory=dict)
    task: str | None = None
    region: str | None = None
    keeping: list[str] | None = None
    together: bool = False
    exact: bool | None = None
    guidance_each: list[Scale | None] | None = None
    strength_each: list[Strength | None] | None = None
    strength: Strength | Literal["auto"] | None = None
    negative: str | None = None
    edit_guidance: Scale | list[Scale] | None = None
    layers: Literal["vital", "all"] | list[int] | None = None
    weight: float | str | list[list[float]] | None = None
    window: tuple[float, float] | None = None
    keep: Literal["auto", "device", "cpu", "disk", "share"] | None = None
    preset: str | dict[str, Any] | None = None
    reference: list[Path] | None = None
    reference_digests: list[str] | None = None
    image_digest: str | None = None
    expected: dict[str, Any] | None = None

    @field_validator("lora", "parts", "reference", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return [value] if isinstance(value, str | Path) else value

    @field_validator("layers", mode="before")
    @classmethod
    def _split_layers(cls, value: Any) -> Any:
        if isinstance(value, str) and value not in ("vital", "all"):
            return [part.strip() for part in value.split(",") if part.strip()]
        return value

    @field_validator("window", mode="before")
    @classmethod
    def _split_window(cls, value: Any) -> Any:
        return value.split(",") if isinstance(value, str) else value

    def settings(self) -> dict[str, Any]:
        """Return the editor's settings: those in `set`, and those that have a short name."""
        settings = dict(self.set)
        settings |= {name: getattr(self, short) for short, name in SHORT.items() if getattr(self, short) is not None}
        if self.edit_guidance is not None:
            known = EDITORS[self.method].setting_names()
            settings["guidance_scale" if "guidance_scale" in known else "target_guidance_scale"] = self.edit_guidance
        return settings

    @property
    def method(self) -> str:
        """The editor's name: the task's, if there is one.

        Raises:
            InputError: Another editor is asked for beside the task.
        """
        if (wanted := as_task(self.task)) is None:
            return self.editor
        if "editor" in self.model_fields_set and self.editor != wanted.editor:
            raise InputError(
                f"The task {self.task!r} is done by {wanted.editor!r}, and {self.editor!r} is asked for: leave one out."
            )
        return wanted.editor

    def speed(self) -> SpeedPreset:
        """Return how pictures are inverted."""
        return make_preset(self.settings().get("preset", "exact"))

    def check(self) -> None:
        """Raise unless everything that can be known without the model is right.

        Raises:
            InputError, UnknownNameError, ImageError: Names the setting or the file.
        """
        known = EDITORS[self.method].setting_names()
        for name in [name for name in self.settings() if name not in known]:
            raise unknown_name(f"setting of {self.method}", name, known)
        if (wanted := as_task(self.task)) is not None:
            wanted.check(self.settings())
        if self.solver is not None:
            make_solver(self.solver)
        if self.region is not None:
            check_where(self.region)
        if self.image is not None:
            prepare(self.image, multiple=1)

    def make_editor(self, model: FlowModel) -> Editor:
        """Return the editor with its settings, all checked."""
        wanted = as_task(self.task)
        settings: dict[str, Any] = {**({} if wanted is None else wanted.settings), **self.settings()}
        return EDITORS[self.method](model, **{name: value for name, value in settings.items() if value != AUTO})

    def make_source(self, editor: Editor, callback: Callback | None = None) -> Source:
        """Draw the source, or take the picture; of a repeated run it must be the same one.

        Raises:
            FingerprintError: The picture or the model is not the one that the repeated run was made with.
        """
        if self.image is None:
            source = editor.generate(
                self.prompt or "",
                seed=self.seed,
                num_steps=DRAWN_STEPS if self.steps is None else self.steps,
                guidance_scale=self.guidance,
                height=self.height,
                width=self.width,
                solver=make_solver(self.solver or "euler"),
                callback=callback,
            )
        else:
            source = editor.invert(
                self.image,
                self.prompt or "",
                solver=None if self.solver is None else make_solver(self.solver),
                num_steps=self.steps,
                nudge_scale=self.nudge,
                inversion=self.inversion,
                guidance_scale=REAL_GUIDANCE if self.guidance is None else self.guidance,
                height=self.height,
                width=self.width,
                callback=callback,
            )
        if self.image_digest is not None:
            source.fingerprint.require(image=self.image_digest)
        return source

    def require_session(self, editor: Editor, source: Source, *, where: str) -> None:
        """Raise unless a saved source is the one that this order would make, as far as the order says.

        Raises:
            FingerprintError: Names every difference: the picture, the prompt, steps, size, guidance and so on.
            InputError: One is drawn and the other is not.
        """
        made = source.fingerprint
        if (self.image is None) != (made.image is None):
            raise InputError(
                f"The session in {where} is of a {'drawn' if self.image else 'real'} picture; see --image."
            )
        asked: dict[str, Any] = {
            "prompt": self.prompt, "seed": self.seed, "num_steps": self.steps, "guidance_scale": self.guidance,
            "inversion": self.inversion, "nudge_scale": self.nudge,
            "solver": None if self.solver is None else describe_solver(make_solver(self.solver)),
        }  # fmt: skip
        if self.image is not None:
            model = editor.model
            picture = prepare(
                self.image, multiple=model.pixel_multiple, max_side=max(model.default_size), height=self.height,
                width=self.width,
            )  # fmt: skip
            asked |= {"image": digest(picture.pixels), "picture": picture.content_size}
            if self.preset is not None or "preset" in self.set:
                speed = editor.speed()
                asked["num_steps"] = self.steps or speed.num_steps
                asked["inversion"] = self.inversion or speed.inversion
        else:
            asked |= {"height": self.height, "width": self.width}
        source.fingerprint.require(**{name: value for name, value in asked.items() if value is not None})

    def edit(self, editor: Editor, source: Source, callback: Callback | None = None) -> EditResult:
        """Draw the edits of a source that was made by this order."""
        each = zip_longest(self.to, self.guidance_each or (), self.strength_each or ())
        wishes = [Edit(prompt, guidance_scale=scale, strength=strength) for prompt, scale, strength in each]
        how: dict[str, Any] = {n: v for n, v in self.settings().items() if self.task is not None or v == AUTO}
        how |= {n: getattr(self, n) for n in ("region", "task", "together", "exact")} | {"keep": self.keeping}
        if self.reference is not None:
            how["reference"] = self.reference
        result = editor.edit(source, wishes, callback=callback, **how)
        if self.reference_digests not in (None, result.recipe.get("reference")):
            raise FingerprintError("The reference pictures are not those of the run that is repeated; see --reference.")
        return result

    def run(self, model: FlowModel, callback: Callback | None = None) -> EditResult:
        """Make the source and its edits by a model that is loaded as the order says; every step of both is told."""
        editor = self.make_editor(model)
        return self.edit(editor, self.make_source(editor, callback), callback)


def from_recipe(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the order's values that repeat the run behind a recipe, of this version or of the one before.

    Raises:
        InputError: The recipe is damaged, or misses something that the run needs: a mask, or latents.
    """
    try:
        source, made_by = recipe["source"], recipe["editor"]
        name = made_by["name"]
        if recipe.get("strokes"):
            raise InputError(
                "This picture was drawn in layers: drop it onto `stableflow app`, or use Stack and Stroke in Python."
            )
        if name not in EDITORS:
            raise unknown_name("editor", name, EDITORS)
        values: dict[str, Any] = {
            "model": source["model"], "dtype": source["dtype"], "max_sequence_length": source.get("text_length"),
            "prompt": source["prompt"], "to": recipe["edits"], "seed": source["seed"], "editor": name,
            "image_digest": source["image"], "region": recipe.get("region"), "exact": recipe.get("exact", True),
            "together": recipe.get("together", False), "guidance_each": recipe.get("edit_guidance"),
            "strength_each": recipe.get("edit_strength"),
            "set": settings_in(recipe, made_by), "expected": dict(source),
            "reference_digests": recipe.get("reference"),
        }  # fmt: skip
        real, encoded = source["image"] is not None, source["inversion"] == "encoded"
        if not real and source["seed"] is None:
            raise InputError(
                "This run drew its source from latents that were given, which a recipe does not hold: there is no seed "
                "to draw it from. Repeat it in Python, with generate(latents=...)."
            )
        if not encoded:
            values |= {
                "steps": len(source["times"]) - 1, "guidance": source["guidance_scale"], "solver": source["solver"],
            }  # fmt: skip
        if real and not encoded:
            values |= {"inversion": source["inversion"], "nudge": source["nudge_scale"]}
        size = source.get("picture") if real else (source["height"], source["width"])
        if size is not None:
            values |= {"height": size[0], "width": size[1]}
        return values
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise InputError(f"The recipe in this picture is incomplete: {error} is missing or wrong.") from error
