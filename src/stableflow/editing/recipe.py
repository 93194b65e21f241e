"""What recipes hold: settings and runs as JSON values."""

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from stableflow.editing.fingerprint import digest
from stableflow.editing.source import Source
from stableflow.editing.versions import versions
from stableflow.editing.where import describe
from stableflow.errors import FingerprintError, InputError
from stableflow.flow.schedule import Schedule

RECIPE_FORMAT = 2


def as_json(value: Any) -> Any:
    """Return a setting as JSON values; of a tensor its digest, from which a run can be recognised and not repeated."""
    if isinstance(value, Schedule):
        return value.to_json()
    if isinstance(value, Tensor):
        return {"digest": digest(value)}
    if dataclasses.is_dataclass(value):
        return {known.name: as_json(getattr(value, known.name)) for known in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): as_json(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(entry) for entry in value]
    return value


def recipe_of(run: Any, exact: bool) -> dict[str, Any]:
    """Return all that made the edits of a run, as JSON values."""
    own, strengths = ([getattr(wish, name) for wish in run.wishes] for name in ("guidance_scale", "strength"))
    return {
        "format": RECIPE_FORMAT,
        "editor": {"name": run.editor.name, **run.editor.settings()},
        "source": (run.named or run.source).fingerprint.as_json(),
        "edits": list(run.edits.prompts),
        "edit_guidance": own if any(scale is not None for scale in own) else None,
        **({"edit_strength": strengths} if any(strength is not None for strength in strengths) else {}),
        "region": None if run.asked is None else describe(run.asked),
        "exact": exact,
        **({} if run.task is None else {"task": run.task.name}),
        **({"together": True} if run.together else {}),
        **({"reference": list(run.references)} if run.references else {}),
        **run.editor.notes(run),
        "nfe": {**run.nfe, "rows": run.rows_a_pass},
        "seconds": round(time.perf_counter() - run.started, 3),
        "versions": versions(),
    }


def settings_in(recipe: Mapping[str, Any], made_by: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a recipe's editor; recipes of format 1 hold those of Stable Flow beside its name."""
    masked = recipe.get("token_mask") if "format" not in recipe else made_by.get("token_mask")
    if masked is not None:
        raise InputError(
            "This run injected through a mask (token_mask), which a recipe holds a digest of. Give a region instead "
            "of a token mask, which recipes hold whole, or repeat the run in Python."
        )
    if "format" not in recipe and made_by["name"] == "stable-flow":
        settings = {"guidance_scale": recipe["guidance_scale"], "layers": recipe["layers"], "weight": recipe["weight"]}
        return settings | {"t_window": recipe["t_window"], "preset": recipe.get("preset") or "exact"}
    return {name: value for name, value in made_by.items() if name != "name" and value is not None}


def require_repeated(expected: Mapping[str, Any] | None, source: Source) -> None:
    """Raise unless a repeated run's source is the one of the run.

    Raises:
        FingerprintError: Names every difference: model, picture, text, size, steps and all else that shapes it.
    """
    if expected is None:
        return
    made = source.fingerprint.as_json()
    names = [name for name in expected if name in made and name not in ("model", "layers")]
    differences = [
        f"{name} was {expected[name]!r} and is {made[name]!r}" for name in names if expected[name] != made[name]
    ]
    if differences:
        raise FingerprintError(
            "This is not the run behind the picture: " + "; ".join(differences) + ". Give the model, the adapters and "
            "the settings that it was made with."
        )
