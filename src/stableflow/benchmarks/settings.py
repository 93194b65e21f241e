"""What a benchmark compares: editors with their settings, one setting a point."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stableflow.benchmarks.cases import Case
from stableflow.benchmarks.following import Follow
from stableflow.editing import EDITORS
from stableflow.models.base import FlowModel
from stableflow.models.guidance import takes_negative
from stableflow.registry import Registry
from stableflow.vital.presets import VITAL, resolve_layers


@dataclass(frozen=True)
class Setting:
    """One way of editing.

    Args:
        name: Unique in its set; what tables call it.
        editor: A name in `EDITORS`.
        options: Of the editor.
        source: Of `generate` or `invert`, where they differ from the defaults.
        edit: Of the editor too, those that an ablation varies.
        region: Where its edits may act, as `Editor.edit` takes it in words; everywhere when None.
        curve: Settings of one curve are joined by a line.
        call: Other arguments of `edit`, such as a task.
        follow: The case's edits are turns, one after the other: see `take_turns`. Side by side when empty.
        asks: Arguments of `edit` that are taken from the case's own `call`; "name=key" takes what lies there under
            another name.
    """

    name: str
    editor: str = "stable-flow"
    options: Mapping[str, Any] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)
    edit: Mapping[str, Any] = field(default_factory=dict)
    region: str | None = None
    curve: str = ""
    call: Mapping[str, Any] = field(default_factory=dict)
    asks: tuple[str, ...] = ()
    follow: Follow = ""

    def arguments(self, case: Case) -> dict[str, Any]:
        """Return what `edit` is called with for a case, beside the source and its prompts."""
        pairs = [ask.partition("=") for ask in self.asks]
        where = {} if self.region is None else {"region": self.region}
        return {**where, **self.call, **{name: case.call[key or name] for name, _, key in pairs}}


SETTINGS: Registry[Callable[[FlowModel], Sequence[Setting]]] = Registry("set of settings")
"""From a name to the settings that a benchmark compares on a model."""


def _inject(name: str, layers: Sequence[int], **edit: Any) -> Setting:
    curve = edit.pop("curve", "")
    return Setting(name, edit={"layers": list(layers), **edit}, curve=curve)


def _groups(model: FlowModel) -> tuple[list[int], list[int], list[int]]:
    """Vital layers, the others, all."""
    vital, every = list(resolve_layers(model, VITAL)), list(range(len(model.layers)))
    return vital, [layer for layer in every if layer not in vital], every


@SETTINGS.register("layers")
def layers(model: FlowModel) -> list[Setting]:
    """The paper's ablation: none, vital, non-vital, all; and as many of the last non-vital layers as vital ones."""
    vital, others, every = _groups(model)
    return [
        _inject("none", []),
        _inject("vital", vital),
        _inject("non-vital", others),
        _inject("all", every),
        _inject("last non-vital", others[-len(vital) :]),
    ]


@SETTINGS.register("quick")
def quick(model: FlowModel) -> list[Setting]:
    """None, vital, non-vital, all, and two other editors."""
    flowedit = Setting("flowedit", "flowedit", {"target_guidance_scale": 3.5})
    return [*layers(model)[:4], Setting("sdedit 0.8", "sdedit", {"strength": 0.8}), flowedit]


FRONT_STEPS = 10  # of every editor and of every source: eight cost the bundled model little (docs/concepts/speed.md)
STRENGTHS = (0.7, 0.85, 1.0)
FRONTS: Mapping[str, Mapping[str, Any]] = {
    "stable-flow": {"strength": (0.25, 0.5, 0.75)},
    "direct-inversion": {"strength": (0.25, 0.5, 0.75)},
    "kv-edit": {"strength": (0.5, 0.75, 1.0), "region": "change"},
    "lomoe": {"region": "change"},
    "brushes": {"strength": (0.6, 0.8, 1.0), "region": "change"},
    "sdedit": {"strength": (0.7, 0.8, 0.9)},
    "flowedit": {"n_max": FRONT_STEPS},
    "sam-flow": {"n_max": FRONT_STEPS, "n_avg": 1},
    "cyclic": {"strength": (0.6, 0.8, 1.0), "cycles": 3, "region": "change"},
    "two-models": {"dial": ("mix", (0.6, 0.4, 0.2))},
    "edit-friendly": {"skip": 0},
    "dnaedit": {"skip": 0},
    "flowalign": {"strength": (0.15, 0.3, 0.5)},
    "uniedit": {"strength": (0.5, 0.7, 0.9)},
    "guide-rescale": {"strength": (0.2, 0.5, 0.8)},
    "polish": {"strength": (0.4, 0.6, 0.8)},
    "rf-inversion": {
        "dial": ("t_window", ((0.7, 1.0), (0.85, 1.0), (0.95, 1.0))),
        "gamma": 0.0,
        "inversion_prompt": None,
    },
    "rf-solver-edit": {"dial": ("inject_steps", (6, 3, 1))},
}
"""Where an editor is measured otherwise than at `STRENGTHS` everywhere in the picture."""
LEFT_OUT = ("move", "dragon", "alike")  # told where things go, or drawing other pictures: no word is changed


@SETTINGS.register("editors")
def editors(model: FlowModel) -> list[Setting]:
    """Every editor that the model can run, at three strengths or more, from one source in as many steps."""
    vital, _, _ = _groups(model)
    source = {"num_steps": FRONT_STEPS}
    every = [Setting("none", "reprompt", source=source), Setting("vital", "stable-flow", {"layers": vital}, source)]
    guided = takes_negative(model.encode_prompt(["a dog"]))
    for name in EDITORS:
        if name not in LEFT_OUT and (guided or not EDITORS[name].needs_negative):
            every += _front(name, source)
    return every


def _front(name: str, source: Mapping[str, Any]) -> list[Setting]:
    """One editor's points, from the strictest to the freest."""
    settings = dict(FRONTS.get(name, {}))
    strengths, region = settings.pop("strength", STRENGTHS), settings.pop("region", None)
    dial, values = settings.pop("dial", ("strength", strengths))
    steps = {"num_steps": FRONT_STEPS} if "num_steps" in EDITORS[name].setting_names() else {}
    return [
        Setting(f"{name} {i}", name, {**steps, **settings, dial: value}, source, region=region, curve=name)
        for i, value in enumerate(values, 1)
    ]


@SETTINGS.register("windows")
def windows(model: FlowModel) -> list[Setting]:
    """Early and late injection in the vital layers, and weights between none and full."""
    vital, _, _ = _groups(model)
    early = [
        _inject(f"vital, t 1-{low:g}", vital, t_window=(low, 1.0), curve="early") for low in (0.9, 0.8, 0.6, 0.4, 0.2)
    ]
    late = [_inject(f"vital, t {high:g}-0", vital, t_window=(0.0, high), curve="late") for high in (0.2, 0.4, 0.6, 0.8)]
    weights = [
        _inject(f"vital, weight {weight:g}", vital, weight=weight, curve="weight") for weight in (0.25, 0.5, 0.75)
    ]
    return [_inject("none", []), *early, *late, *weights, _inject("vital", vital)]


RANDOM_SETS = 6


def random_layer_sets(model: FlowModel, count: int) -> dict[str, list[int]]:
    """Return the vital set and `count` random ones of its size, none of them twice, by name; always the same ones."""
    vital, _, every = _groups(model)
    rng, sets = random.Random("random layer sets"), {"vital": vital}
    while len(sets) <= count:
        drawn = sorted(rng.sample(every, len(vital)))
        if drawn not in sets.values():
            sets[", ".join(map(str, drawn))] = drawn
    return sets


@SETTINGS.register("random")
def random_sets(model: FlowModel) -> list[Setting]:
    """The vital set against random sets of its size."""
    chosen = random_layer_sets(model, RANDOM_SETS).items()
    return [_inject("none", []), *(_inject(name, drawn) for name, drawn in chosen)]


@SETTINGS.register("single")
def single_layers(model: FlowModel) -> list[Setting]:
    """Injection in one layer at a time."""
    return [_inject("none", []), *(_inject(f"layer {layer.index}", [layer.index]) for layer in model.layers)]


@SETTINGS.register("steering")
def steering(model: FlowModel) -> list[Setting]:
    """Steering by the stored path, alone and on top of the vital layers, beside those and the dial."""
    vital, _, _ = _groups(model)
    steered = [
        Setting(f"{name}, strength {strength:g}", "steered", {"layers": layers, "strength": strength}, curve=name)
        for name, layers in (("steered", []), ("steered, vital", vital))
        for strength in (1.0, 0.6)
    ]
    dial = [
        Setting(f"dial {strength:g}", edit={"strength": strength}, curve="dial") for strength in (0.5, 0.65, 0.8, 0.9)
    ]
    return [_inject("none", []), _inject("vital", vital), *steered, *dial]


@SETTINGS.register("nudging")
def nudging(model: FlowModel) -> list[Setting]:
    """Latent nudging from none to too much, real pictures, vital layers."""
    vital, _, _ = _groups(model)
    scales = (0.9, 1.0, 1.05, 1.1, 1.15, 1.2, 1.3)
    return [
        Setting(f"nudge {scale:g}", source={"nudge_scale": scale}, edit={"layers": vital}, curve="nudging")
        for scale in scales
    ]


@SETTINGS.register("inversion")
def inversions(model: FlowModel) -> list[Setting]:
    """The paper's inversion and aligned replay, solvers and steps; real pictures, vital layers."""
    vital, _, _ = _groups(model)
    paper = [
        Setting(
            f"paper, {solver}, {steps} steps",
            source={"inversion": "paper", "solver": solver, "num_steps": steps},
            edit={"layers": vital},
            curve=f"paper, {solver}",
        )
        for solver in ("fixed_point", "euler", "midpoint", "fireflow")
        for steps in (15, 50)
    ]
    aligned = [
        Setting(f"aligned, {steps} steps", source={"num_steps": steps}, edit={"layers": vital}, curve="aligned")
        for steps in (8, 15, 28, 50)
    ]
    return aligned + paper
