"""Every argument of the Python interface, given what it must not be: one error that names it, at once, or a TypeError.

No test here is about a result: a call that goes through, or fails deep inside, is a fault. The counts at the end keep
the tables from shrinking unseen.
"""

import dataclasses
import typing

import numpy as np
import pytest
import torch
from bad_values import (
    INF,
    NAN,
    NO_COUNT,
    NO_FLAG,
    NO_FUNCTION,
    NO_LIST,
    NO_NUMBER,
    NO_PATH,
    NO_TEXT,
    ODD,
    bad_values,
    faults,
    shown,
)  # fmt: skip

import stableflow as sf
from stableflow.editing import EDITORS
from stableflow.editing.policy import Hold, Policy, make_policy
from stableflow.editing.presets import SpeedPreset, make_preset
from stableflow.editing.wishes import Edit
from stableflow.vital.choice import Threshold, Top
from stableflow.vital.protocol import Protocol

PROMPT, EDITED = "a red dog standing on the grass", "a blue cat sitting on the snow"
SIZE = (16, 16)
TRIED: dict[str, int] = {}
"""How many values were tried of what; the last test looks at the sum."""


def none_of(values, *removed):
    return [value for value in values if not any(value is other for other in removed)]


def check(what, cases):
    found, count = faults(cases)
    TRIED[what] = count
    assert count and not found, f"{len(found)} of {count}:\n" + "\n".join(found[:12])


def over(function, argument, values, *words, **others):
    """Cases of a function, one for each value of an argument."""
    words = words or (argument,)
    for value in values:
        file = (value,) if isinstance(value, str) and len(value) > 1 else ()  # a file's own name will do
        yield shown(value), lambda value=value: function(**{**others, argument: value}), (*words, *file)


@pytest.fixture(scope="module")
def editor(model):
    return sf.StableFlow(model, layers=[0, 3])


@pytest.fixture(scope="module")
def source(editor):
    return editor.generate(PROMPT, seed=1, num_steps=2)


NO_WEIGHT = [value for value in NO_NUMBER if not isinstance(value, str) or value != "1"]
STEPS = [*NO_COUNT, None, 0, 10_001]
SIDES = [*NO_COUNT, 0, 15, 17]
NOISES = [*NO_LIST, torch.ones(1, 4, 8, 8) * NAN, torch.ones(1, 4, 8), torch.ones(1, 4, 8, 9), torch.ones(2, 4, 8, 8),
          torch.full((1, 4, 8, 8), INF), torch.ones(1, 4, 8, 8, dtype=torch.int64)]  # fmt: skip
SOLVERS = [*none_of(NO_LIST), sf.Euler, 1.5, {"name": "euler", "x": 1}, {"name": "fixed_point", "iterations": 0},
           {"name": "fixed_point", "iterations": "2"}, {"name": "fixed_point", "iterations": NAN}, {"name": None},
           {"name": "no"}, "Euler", "fixed-point"]  # fmt: skip
PROMPTS = [*NO_TEXT, None, "", " \n", ["a", "b"], (), [], [PROMPT]]
GUIDANCE = [*NO_NUMBER, -1, -0.001, [1.0], (2.0, 3.0)]
PICTURES = [*none_of(ODD), None, 7, True, NAN, "", "no-such-file.png", "/", "/dev/null", np.zeros((16, 16, 3), np.uint8),
            torch.ones(3, 16), torch.ones(4, 16, 16), torch.ones(3, 16, 16) * NAN, torch.ones(3, 16, 16) * 2,
            torch.ones(1, 3, 16, 16), torch.zeros(3, 0, 0), torch.ones(3, 8, 64), torch.ones(3, 16, 16).int()]  # fmt: skip
GENERATE = {
    "prompt": PROMPTS, "seed": [*none_of(NO_COUNT), 2**63], "latents": NOISES, "num_steps": STEPS,
    "guidance_scale": GUIDANCE, "height": SIDES, "width": SIDES, "solver": [*SOLVERS, None], "callback": NO_FUNCTION,
}  # fmt: skip
INVERT = {
    "image": PICTURES, "prompt": PROMPTS, "solver": [*SOLVERS, "euler", "heun", sf.Midpoint()],
    "num_steps": [*none_of(STEPS, None)], "nudge_scale": [*NO_NUMBER, 0, -1, 1e30, 101, 10**9],
    "inversion": [*NO_TEXT, "", "exact", "Aligned"], "guidance_scale": GUIDANCE, "height": [*NO_COUNT, 0],
    "width": [*NO_COUNT, 0], "callback": NO_FUNCTION,
}  # fmt: skip
EXACT = {"height": 16, "width": 16}


@pytest.mark.parametrize("argument", GENERATE)
def test_generate(editor, argument):
    words = {"latents": ("latents", "seed"), "prompt": ("prompt",), "num_steps": ("num_steps",)}
    others = {"prompt": PROMPT, "num_steps": 1} | ({} if argument == "latents" else {"seed": 1})
    if argument == "latents":
        others |= EXACT
    check(f"generate {argument}", over(editor.generate, argument, GENERATE[argument], *words.get(argument, (argument, argument.title())), **others))  # fmt: skip


@pytest.mark.parametrize("argument", INVERT)
def test_invert(editor, argument):
    others = {"image": torch.full((3, 16, 16), 0.5), "prompt": PROMPT, "num_steps": 1} | (
        EXACT if argument in EXACT else {}
    )
    words = {
        "image": ("image", "picture", "Picture", "file"),
        "prompt": ("prompt",),
        "solver": ("solver", "Aligned replay"),
    }
    check(f"invert {argument}", over(editor.invert, argument, INVERT[argument], *words.get(argument, (argument,)), **others))  # fmt: skip


SOURCES = [*ODD, None, "session", 7, PROMPT, []]
WISHES = [
    *none_of(NO_TEXT),
    None,
    "",
    [],
    [""],
    [None],
    [EDITED, None],
    [[EDITED]],
    [1],
    [EDITED, ""],
    {EDITED},
    [b"a"],
]
REGIONS = [*none_of(NO_TEXT, object), "", "x", "box", "box:", "box:1,2,3", "box:0,0,0,0", "box:0,0,99,99", "box:nan,0,1,1",
           "box:inf,0,1,1", "box:0.5,0,4,4", "box:a,b,c,d", "box:-1,0,4,4", "polygon:1,2", "polygon:nan,1,2,3,4,5",
           "points:", "points:-1,2,2", "points:1,99,99", "points:inf,1", "mask:", "mask:no-such", "mask:/", "word:",
           "word:zebra", "word:(", "amount:", "amount:1x1x1:x", "amount:0x0x0:", "amount:-1x2x3:AAAA", "~", "~~", "~x",
           "amount:1x99999999x99999999:AAAA", torch.ones(1, 16, 16), np.ones((16, 16)), lambda run: None, lambda run: 1,
           sf.Region.everywhere((16, 64))]  # fmt: skip
EDIT = {
    "source": SOURCES,
    "prompts": WISHES,
    "region": REGIONS,
    "exact": none_of(NO_FLAG, None),
    "callback": NO_FUNCTION,
}


@pytest.mark.parametrize("argument", EDIT)
def test_edit(editor, source, argument):
    words = {"source": ("source",), "prompts": ("prompt",)}
    words["region"] = (
        "region",
        "Region",
        "mask",
        "box",
        "polygon",
        "points",
        "word",
        "image",
        "folder",
        "There is no file",
    )
    others = {"source": source, "prompts": EDITED}
    check(f"edit {argument}", over(editor.edit, argument, EDIT[argument], *words.get(argument, (argument,)), **others))


FREE_TEXT = {"negative", "inversion_prompt", "opposite"}
OUT_OF_RANGE = {
    ("flowedit", "n_max"): [0, 29], ("flowedit", "n_min"): [24], ("flowedit", "n_avg"): [0], ("sdedit", "num_steps"): [0],
    ("stable-flow", "layers"): ["", "some", [99], [0, 0], [0.5], [NAN], ["0"], [True], [2**70]],
    ("stable-flow", "weight"): [NAN, 2, -1, "x", "", "1:2:3", "nan", [[1, NAN]], [[2, 1]], [[0, 1], [1, 1]], [[]], "1@1..0"],
    ("stable-flow", "t_window"): [(1, 0), (0, 2), (NAN, 1), (0,), 1, "0,1", (None, 1), ("0", "1")],
    ("stable-flow", "policy"): ["", "no", {"x": 1}, {"hold": 7}, {"hold": [{"layers": "x"}]}, {"pin": NAN}, {"pin": 2}, [1]],
    ("stable-flow", "preset"): ["", "no", {}, {"name": 1}, {"x": 1}, {"name": "a", "num_steps": "8"}],
    ("stable-flow", "kv_memory"): ["", "tape"],
    ("stable-flow", "token_mask"): [7, "x", torch.ones(4), torch.ones(4, 4) * NAN, torch.ones(4, 4) * 2, np.ones((4, 4), object)],
    ("rf-inversion", "t_window"): [(1, 0), (NAN, 1), (0,), "x"], ("rf-inversion", "gamma"): [1.01], ("rf-inversion", "eta"): [1.5],
    ("rf-solver-edit", "inject_steps"): [16], ("rf-solver-edit", "layers"): [[99], [0, 0], [0.5], ["a"], "x"],
}  # fmt: skip
SETTINGS = [(name, field) for name in sorted(EDITORS) for field in EDITORS[name].setting_names()]


@pytest.mark.parametrize(("name", "field"), SETTINGS, ids=str)
def test_settings_of_editors(model, name, field):
    """By the fields' own annotations, so that every editor that is ever registered is held to it."""
    kind = EDITORS[name]
    needed = {"layers": [0, 3]} if "layers" in kind.setting_names() and field != "layers" else {}
    hint = typing.get_type_hints(kind)[field]
    values = [*bad_values(hint), *OUT_OF_RANGE.get((name, field), [])]
    if field not in FREE_TEXT and _is_name(hint):
        values += ["no-such-name"]
    if field.endswith("guidance_scale") and "Sequence" in str(hint):
        values += [[NAN], [-1], ["x"], [None], [True]]
    words = (field, field.replace("_", " "))
    check(f"{name} {field}", over(lambda **settings: kind(model, **settings), field, values, *words, **needed))


def _is_name(hint):
    return hint is str or str in typing.get_args(hint)


@pytest.mark.parametrize("name", EDITORS)
def test_models_of_editors_and_settings_they_have_not(model, source, name):
    cases = [*over(EDITORS[name], "model", [*ODD, None, "tiny", 7, model.pipeline], "model")]
    kept = {"layers": [0, 3]} if "layers" in EDITORS[name].setting_names() else {}
    made = EDITORS[name](model, **kept)
    cases += [
        (key, lambda key=key: made.edit(source, EDITED, **{key: 1}), (key,)) for key in ("x", "no_steps", "Strength")
    ]
    cases += [(key, lambda key=key: made.having(**{key: 1}), (key,)) for key in ("x", "model_", "")]
    check(f"{name} model", cases)


CLASSES = {
    (Edit, "prompt"): [*NO_TEXT, None], (Edit, "region"): [*none_of(NO_TEXT, object, "\ud800"), torch.ones(1, 4, 4)],
    (Edit, "guidance_scale"): GUIDANCE,
    (Hold, "layers"): [*NO_LIST, None, [0.5], ["a"], [-1], [True]], (Hold, "parts"): [*NO_LIST, None, (), ("key", "key"), ("k",), [1]],
    (Hold, "where"): [*NO_TEXT, None, "", "there"], (Hold, "weight"): [*NO_WEIGHT, None, 2, -1],
    (Policy, "hold"): [*NO_LIST, None, ["vital"], [1], [Hold]], (Policy, "pin"): [*NO_WEIGHT, None, 2, -1],
    (sf.Schedule, "knots"): [*NO_LIST, None, (), [1], [(1, 2, 3)], [(1, "x")], [(NAN, 1)], [(1, INF)], [(2, 1)], [(0, 1), (1, 1)], [(None, 1)]],
    (SpeedPreset, "name"): [*NO_TEXT, None], (SpeedPreset, "solver"): [*SOLVERS, None], (SpeedPreset, "inversion"): [*NO_TEXT, None, "x"],
    (SpeedPreset, "num_steps"): STEPS, (SpeedPreset, "kv_precision"): [*NO_TEXT, None, "fp4"],
    (SpeedPreset, "reuse_every"): [*NO_COUNT, None, 0], (SpeedPreset, "reuse_tolerance"): [*NO_NUMBER, None, -1],
    (sf.FixedPoint, "iterations"): STEPS, (Top, "count"): [*NO_COUNT, None, 0], (Threshold, "value"): [*NO_NUMBER, None],
    (sf.Region, "amount"): [*NO_LIST, None, torch.ones(4, 4), torch.ones(1, 4, 4) * NAN, torch.ones(1, 4, 4) * 1.5, -torch.ones(1, 4, 4),
                            torch.ones(1, 4, 4).int(), torch.ones(0, 4, 4), np.ones((1, 4, 4))],
}  # fmt: skip
CLASSES |= {
    (Protocol, field.name): bad_values(field.type) for field in dataclasses.fields(Protocol)
}  # its annotations are its own
NEEDED = {Edit: {"prompt": EDITED}, SpeedPreset: {"name": "own"}}


@pytest.mark.parametrize(("kind", "field"), CLASSES, ids=lambda value: getattr(value, "__name__", value))
def test_settings_that_are_classes_of_their_own(kind, field):
    words = (field, *({"value": ("threshold",), "count": ("top",), "where": ("place",)}.get(field, ())))
    check(f"{kind.__name__} {field}", over(kind, field, CLASSES[kind, field], *words, "knots", "schedule", **(
        {name: value for name, value in NEEDED.get(kind, {}).items() if name != field})))  # fmt: skip


SIZES = [
    *NO_LIST,
    None,
    (),
    (1,),
    (1, 2, 3),
    (0, 4),
    (4, -1),
    (1.5, 4),
    ("4", 4),
    (NAN, 4),
    (2**40, 2**40),
    (None, None),
]
POINTS = [
    *NO_LIST,
    None,
    [],
    [1],
    [(1,)],
    [(1, 2, 3)],
    [("a", 1)],
    [(NAN, 1)],
    [(INF, 1)],
    [(None, None)],
    [(10**9, 1)],
]
BOX = {"x": 0, "y": 0, "width": 4, "height": 4, "size": SIZE}
NO_PIXELS = [*none_of(NO_COUNT, -1), None]
R = sf.Region
MADE = R.box(0, 0, 4, 4, size=SIZE)
MASKS = [*[odd for odd in ODD if not isinstance(odd, torch.Tensor)], None, 7, True, NAN, "", "no-such.png", "/", "a\0b", np.ones((4, 4), np.uint8), np.ones((4, 4)) * 7, np.ones((4, 4)) * NAN,
         np.ones(4), np.ones((0, 4)), np.ones((4, 4), np.int64), torch.ones(4, 4) * -1, np.ones((4, 4), complex), np.ones((4, 4), object)]  # fmt: skip
REGION_CALLS = {
    "everywhere": (R.everywhere, {}, {"size": SIZES}), "nowhere": (R.nowhere, {}, {"size": SIZES}),
    "box": (R.box, BOX, {**{side: [*NO_COUNT, None, 99] for side in ("x", "y", "width", "height")}, "size": SIZES}),
    "polygon": (R.polygon, {"points": [(0, 0), (4, 0), (0, 4)], "size": SIZE}, {"points": POINTS, "size": SIZES}),
    "points": (R.points, {"points": [(1, 1)], "radius": 1, "size": SIZE}, {"points": POINTS, "radius": [*NO_NUMBER, None, -1], "size": SIZES}),
    "from_mask": (R.from_mask, {}, {"mask": MASKS}),
    "row": (R(torch.ones(2, 4, 4)).row, {}, {"index": [*NO_COUNT, None, 2]}),
    "feather": (MADE.feather, {}, {"pixels": [*NO_COUNT, None]}), "grow": (MADE.grow, {}, {"pixels": NO_PIXELS}),
    "moved": (MADE.moved, {"dx": 0, "dy": 0}, {"dx": NO_PIXELS, "dy": NO_PIXELS}), "resized": (MADE.resized, {}, {"size": SIZES}),
    "padded": (MADE.padded, {}, {"size": [*SIZES, (4, 4)]}), "cropped": (MADE.cropped, {}, {"size": [*SIZES, (99, 99)]}),
    "fitted": (MADE.fitted, {}, {"content_size": [*SIZES, (16, 64)]}), "whole": (MADE.whole, {}, {"side": [*NO_COUNT, None, 0, 3]}),
    "tokens": (MADE.tokens, {"grid": (4, 4)}, {"grid": SIZES, "rule": [*NO_TEXT, None, "", "max"]}),
    "latents": (MADE.latents, {"size": (4, 4)}, {"size": SIZES, "rule": [*NO_TEXT, None, "most"]}),
}  # fmt: skip
REGION_CASES = [(name, argument) for name, (_, _, table) in REGION_CALLS.items() for argument in table]


@pytest.mark.parametrize(("name", "argument"), REGION_CASES, ids=str)
def test_regions(name, argument):
    call, others, table = REGION_CALLS[name]
    words = (
        argument,
        "size",
        "mask",
        "polygon",
        "box",
        "pixels",
        "image",
        "picture",
        "rows",
        "columns",
        "There is no file",
    )
    values = table[argument]
    check(f"region {name} {argument}", over(call, argument, values, *words, **{k: v for k, v in others.items() if k != argument}))  # fmt: skip


NUMBERS = [*NO_NUMBER, None]
WINDOWS = [*NO_NUMBER, None, -1, 2]
FUNCTIONS = {
    "constant": (sf.Schedule.constant, {}, {"value": NUMBERS}),
    "window": (sf.Schedule.window, {"low": 0, "high": 1}, {"low": WINDOWS, "high": WINDOWS, "value": NUMBERS}),
    "ramp": (sf.Schedule.ramp, {"start": 0, "end": 1}, {"start": NUMBERS, "end": NUMBERS, "low": WINDOWS, "high": WINDOWS}),
    "parse": (sf.Schedule.parse, {}, {"text": [*NO_TEXT, None, "", "x", "1:", ":", ",", "1:1:1", "nan", "inf", "1@", "1@0", "1@0..2", "1@1..0", "1e999", "2:1", "0:1,1:0"]}),
    "from_json": (sf.Schedule.from_json, {}, {"value": [*[value for value in NO_LIST if value is not True and not isinstance(value, int)], True, None, [], [1], [[1]], [[1, None]], [[1, NAN]], NAN]}),
    "make_policy": (make_policy, {}, {"policy": [*NO_LIST, None, [], "", "no", {"hold": [{"x": 1}]}, {"hold": [1]}, {"hold": None}, {"pin": None}]}),
    "make_preset": (make_preset, {}, {"preset": [*NO_LIST, None, [], "no", {"name": None}, {"name": "a", "solver": {}}]}),
    "load": (sf.load, {}, {"name": [*NO_PATH, "", "tiney", "/no/model", "a/b/c", "model.gguf"], "device": [*NO_TEXT, None, "", "moon", "cuda:99", "meta"],
                           "dtype": [*none_of(ODD), "float32", torch.int8, 7, torch.float64], "offload": [*NO_TEXT, None, "", "disk", "model", "group"],
                           "quantise": [*NO_TEXT, "", "int4"], "lora": [*NO_PATH[1:8], 7, "no_lora", "/", "/dev/null"],
                           "max_sequence_length": [*NO_COUNT, 0]}),
    "wrap": (sf.wrap, {}, {"pipeline": [*ODD, None, "tiny", 7]}),
    "source": (sf.Source.load, {}, {"folder": [*NO_PATH, "", "no_session", "/"]}),
    "load_image": (sf.load_image, {}, {"image": PICTURES}),
}  # fmt: skip
FUNCTION_CASES = [(name, argument) for name, (_, _, table) in FUNCTIONS.items() for argument in table]


@pytest.mark.parametrize(("name", "argument"), FUNCTION_CASES, ids=str)
def test_functions(name, argument, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call, others, table = FUNCTIONS[name]
    if name == "load" and argument != "name":
        others = others | {"name": "tiny"}
    words = {"load": ("model", "name", "LoRA", "lora", "device", "quantised"), "source": ("source", "folder"), "wrap": ("pipeline",),
             "load_image": ("image", "picture", "file")}.get(name, ("schedule", "window", "weight", "value"))  # fmt: skip
    check(f"{name} {argument}", over(call, argument, table[argument], argument, argument.title(), *words, **others))


SPANS = [*NO_LIST, None, (1, 0), (0, 2), (NAN, 1), (0,)]
LAYERS = [*NO_LIST, [99], [-1], [0, 0], [0.5], ["a"], [True]]
ATTENTION = {
    "editor": [*ODD, None, "stable-flow"], "source": SOURCES, "prompts": WISHES, "points": [*POINTS, [(99, 1)], [(-1, 1)], [(0.5, 1)]],
    "layers": [*LAYERS, []], "t_window": SPANS, "per_step": NO_FLAG, "per_head": NO_FLAG, "inject_layers": LAYERS, "inject_window": SPANS,
    "weight": [*NO_WEIGHT, None, 2, -1], "guidance_scale": [*NO_NUMBER, -1, [NAN], [1, 2, 3]], "callback": NO_FUNCTION,
}  # fmt: skip
VITALITY = {
    "model": [*ODD, None, "tiny"], "prompts": [*NO_TEXT, None, [], "ab", [PROMPT], [PROMPT, None]], "protocol": [*NO_TEXT, None, "", "quick", Protocol],
    "similarity": [*NO_TEXT, None, "", "cosine", [], ["ssim", 1]], "encoder": [*NO_TEXT, None], "choice": [*ODD, None, "gap", 7, Top(99), Top],
    "num_steps": none_of(STEPS, None), "guidance_scale": [*NO_NUMBER, -1], "first_seed": [*NO_COUNT, 2**63 - 1], "folder": none_of(NO_PATH, None),
    "told": NO_FUNCTION,
}  # fmt: skip


@pytest.mark.parametrize("argument", ATTENTION)
def test_attention(editor, source, argument):
    others = {"editor": editor, "source": source, "prompts": EDITED, "points": [(1, 1)]}
    words = {"prompts": ("prompt",), "inject_window": ("inject_window",), "layers": ("layers", "captured")}
    check(f"attention {argument}", over(sf.attention, argument, ATTENTION[argument], *words.get(argument, (argument,)), **others))  # fmt: skip


@pytest.mark.parametrize("argument", VITALITY)
def test_measuring(model, argument):
    others = {"model": model, "prompts": [PROMPT, EDITED], "num_steps": 1}
    words = {"choice": ("choice", "top"), "prompts": ("prompt",)}
    check(f"vitality {argument}", over(sf.measure_vitality, argument, VITALITY[argument], *words.get(argument, (argument,)), **others))  # fmt: skip


def test_there_were_a_thousand():
    if len(TRIED) < 100:
        pytest.skip("only some of the tests ran; ends when all of this file run together")
    assert sum(TRIED.values()) >= 2000, TRIED
