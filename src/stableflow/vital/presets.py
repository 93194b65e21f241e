"""Published and measured vital sets, found by checkpoint and never by family."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources

from stableflow.checks import check_count
from stableflow.errors import InputError, unknown_name
from stableflow.models.base import FlowModel
from stableflow.models.layer_sets import local_sets
from stableflow.reading import parse_json, short

VITAL, ALL = "vital", "all"
DEFAULT_ENCODER = "facebook/dinov2-base"
PAPER_NUDGE_SCALE = 1.15
LARGEST_LAYER = 10**9  # to tell a wrong number from no number


@dataclass(frozen=True)
class Preset:
    """The vital layers of one checkpoint.

    Args:
        layers: Indices in execution order.
        num_layers: Layers of the checkpoint.
        names: Hub ids or names under which it is loaded.
        checkpoint: Its `checkpoint_hash`, where it was measured here.
        source: Where the set comes from.
        nudge_scale: Latent nudging that suits real pictures with this checkpoint.
        choice: The rule that the set follows.
        prompts: The prompt set to measure it on.
        vitality: Measured by the exact protocol, by similarity.
        tasks: Layers that suit one task, by its name, where others do better there.
        encoder: Of the similarity to measure it by: a folder, a hub id, or a bundled encoder.
    """

    layers: tuple[int, ...]
    num_layers: int
    names: tuple[str, ...]
    checkpoint: str | None
    source: str
    nudge_scale: float = PAPER_NUDGE_SCALE
    choice: str = "gap"
    prompts: str = "diverse"
    encoder: str = DEFAULT_ENCODER
    vitality: Mapping[str, Sequence[float]] = field(default_factory=dict)
    tasks: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


class VitalSet(tuple[int, ...]):
    """Layers that a preset chose, and no caller: a task that does better with others may take those."""


def resolve_layers(model: FlowModel, layers: str | Sequence[int], name: str = "layers") -> tuple[int, ...]:
    """Return layer indices, sorted; "vital" asks for the preset of this very checkpoint, "all" for every layer.

    "vital:TASK" asks for the preset's layers of a task, such as one that was shared with it.

    Raises:
        InputError: An index is out of range or repeated, or there is no preset; says what to do.
    """
    if isinstance(layers, VitalSet):
        return layers
    if isinstance(layers, str) and layers == VITAL:
        return VitalSet(find_preset(model).layers)
    if isinstance(layers, str) and layers.startswith(f"{VITAL}:"):
        return VitalSet(_of_task(model, layers.removeprefix(f"{VITAL}:")))
    if isinstance(layers, str) and layers == ALL:
        return tuple(range(len(model.layers)))
    no_list = isinstance(layers, (str, bytes, Mapping, set)) or not isinstance(layers, Iterable)
    if no_list or getattr(layers, "ndim", 1) != 1:
        raise InputError(f"{name} must be {VITAL!r}, {ALL!r} or a list of layer numbers, got {short(layers)}.")
    total = len(model.layers)
    layers = [check_count(f"{name}[{i}]", index, -LARGEST_LAYER) for i, index in enumerate(layers)]
    wrong = [index for index in layers if not 0 <= index < total]
    if wrong:
        raise InputError(
            f"{name} {short(wrong)} are out of range: {model.name!r} has layers 0..{total - 1}, counted in execution "
            "order."
        )
    if len(set(layers)) != len(layers):
        raise InputError(f"{name} must not repeat, got {short(list(layers))}.")
    return tuple(sorted(layers))


def _of_task(model: FlowModel, task: str) -> tuple[int, ...]:
    tasks = find_preset(model).tasks
    if task not in tasks:
        raise unknown_name(f"task with layers of its own for {model.name}", task, tasks)
    return tasks[task]


def find_preset(model: FlowModel) -> Preset:
    """Return the preset of this checkpoint; warns where only the name agrees.

    Raises:
        InputError: None is known for it.
    """
    digest, preset = model.checkpoint_hash(), known_preset(model)
    if preset is None:
        raise InputError(
            f"No vital layers are known for {model.name!r} (checkpoint {digest}). A set holds for one checkpoint, not "
            f"for its family. Pass layer numbers (0..{len(model.layers) - 1}, in execution order), or measure the set "
            f"with `stableflow vital {model.name}`.{_known_at(len(model.layers))}"
        )
    if preset.checkpoint != digest and (preset.checkpoint is not None or model.modifications):
        changed = ", ".join(model.modifications) or "weights other than those measured"
        warnings.warn(f"The vital layers of {model.name!r} were measured without: {changed}.", stacklevel=3)
    return preset


def known_preset(model: FlowModel) -> Preset | None:
    """Return the preset of this checkpoint, else the one of its name, else None; shipped ones before local files."""
    digest, presets = model.checkpoint_hash(), all_presets()
    measured = [preset for preset in presets if preset.checkpoint == digest] or local_preset(digest)
    named = [preset for preset in presets if model.name in preset.names and preset.num_layers == len(model.layers)]
    return next(iter(measured + named), None)


def local_preset(checkpoint: str) -> list[Preset]:
    """Return the layer set of a checkpoint in local folders, if one is there: see `stableflow vital pull`.

    Raises:
        LoadError: The file is no layer set.
    """
    from stableflow.vital.sharing import read_set

    return [read_set(file) for file in local_sets() if file.stem == checkpoint][:1]


def all_presets() -> list[Preset]:
    """Read every preset that the package ships."""
    folder = resources.files("stableflow.vital") / "presets"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".json")), key=lambda file: file.name)
    return [_read(file.read_text(encoding="utf-8"), file.name) for file in files]


def _read(text: str, name: str) -> Preset:
    entry = parse_json(text, where=name)
    return Preset(
        layers=tuple(entry["layers"]),
        num_layers=entry["num_layers"],
        names=tuple(entry["names"]),
        checkpoint=entry.get("checkpoint"),
        source=entry["source"],
        nudge_scale=entry.get("nudge_scale", PAPER_NUDGE_SCALE),
        choice=entry.get("choice", "gap"),
        prompts=entry.get("prompts", "diverse"),
        encoder=entry.get("encoder", DEFAULT_ENCODER),
        vitality=entry.get("vitality", {}),
        tasks={task: tuple(layers) for task, layers in entry.get("tasks", {}).items()},
    )


def default_nudge_scale(model: FlowModel) -> float:
    """Return the nudging that suits this checkpoint; the paper's 1.15 where nothing else is known."""
    preset = known_preset(model)
    return PAPER_NUDGE_SCALE if preset is None else preset.nudge_scale


def _known_at(num_layers: int) -> str:
    alike = [preset for preset in all_presets() if preset.num_layers == num_layers]
    if not alike:
        return ""
    sets = "; ".join(f"{preset.names[0]}: {','.join(map(str, preset.layers))}" for preset in alike)
    return f" If this is a copy of one of these, pass its layers: {sets}."
