"""What shapes a picture stands in its recipe: every setting of every editor, of a source and of an order, in turn."""

import dataclasses
import inspect
import json

import pytest
import torch
from quick import ALL, EDITS, PROMPT, gap, make, smooth
from tiny_flux import SIZE

from stableflow.cli.options import SHAPING
from stableflow.editing import EDITORS, Editor
from stableflow.editing.fingerprint import Fingerprint
from stableflow.editing.wishes import Edit
from stableflow.errors import StableFlowError
from stableflow.images import to_pil
from stableflow.order import SHORT, Order, from_recipe

HALF = torch.cat([torch.zeros(2, 4), torch.ones(2, 4)])
SETTINGS = {
    "strength": 0.3, "guidance_scale": 1.7, "num_steps": 5, "n_max": 2, "n_min": 1, "n_avg": 2,
    "source_guidance_scale": 3.0, "target_guidance_scale": 2.0, "seed": 9, "gamma": 0.9, "eta": 0.3,
    "t_window": (0.3, 0.9), "inversion_prompt": "a red dog", "inversion_guidance_scale": 2.5, "inject_steps": 2,
    "layers": (1, 2), "weight": 0.4, "token_mask": HALF, "policy": "free", "kv_memory": "share", "preset": "fast",
    "skip": 2, "sigma": "full", "p": 0.9, "fresh": 0.7, "begin": 0.4, "amount": 0.9, "blend_steps": 1, "bootstrap": 0.9,
    "solver": "fireflow", "published": True, "compute": "all", "away": 0.5,
    "pull": 0.3, "opposite": "a red cat", "share": 0.3, "omega": 1.0, "hold": 0.5, "decay": 1.0,
    "by": (8, 0), "seam": 1, "moves": [{"region": "box:0,2,8,8", "dy": 4.0}], "way": "collage", "pasted": False,
    "words": 0.5, "scale": 1.0, "low": 0.1, "high": 0.5, "depth": 0.9, "steps": 3, "size": 0.1,
    "alpha": 2.0, "masked": False, "cycles": 3, "plain": False, "stay": ("dog",), "base": 0.5, "levels": 1, "back": 2,
    "mix": 0.2, "until": 0.8, "statistics": 0.4,
}  # fmt: skip
REFUSED = {
    "negative": ("in the snow", "takes no negative prompt"), "source_adapter": (0.5, "no adapter"),
    "edit_adapter": (0.5, "no adapter"),
}  # fmt: skip
# by this model, which has no classifier-free guidance and no LoRA
WITHIN = {"region": "box:0,0,8,16"}
BESIDE = {
    ("kv-edit", "seed"): {"fresh": 0.5},
    ("lomoe", "seed"): WITHIN,
    ("lomoe", "bootstrap"): WITHIN,
    ("brushes", "blend_steps"): WITHIN,
    ("guide-rescale", "scale"): {"low": 0.0, "high": 100.0},
    ("guide-rescale", "low"): {"scale": 1e-9},
    ("guide-rescale", "high"): {"scale": 1e6},
    ("polish", "strength"): {"depth": 0.8},
    ("cyclic", "low"): {"low": 0.7},
    ("cyclic", "high"): {"high": 1.0},
    ("dragon", "scale"): {"low": 0.0, "high": 100.0},
    ("dragon", "low"): WITHIN | {"scale": 1e-9, "by": (8, 0)},
    ("dragon", "high"): {"scale": 1e6, "low": 0.0, "high": 0.2},
    ("dragon", "by"): WITHIN,
    ("pixelman", "by"): WITHIN,
    ("pixelman", "seam"): WITHIN | {"by": (8, 0)},
}  # without which a setting has nothing to act on
SAME_LATENTS = {"kv_memory", "preset", "pasted", "compute"}
# of a drawn source: where keys lie, how real pictures are inverted, what is shown, and which tokens are computed
PICTURE = torch.tensor(smooth(SIZE, SIZE)).permute(2, 0, 1).float()


def lasting(recipe):
    """A recipe without what two equal runs differ in: time, and passes that the second finds kept with the source."""
    return json.loads(json.dumps({name: value for name, value in recipe.items() if name not in ("seconds", "nfe")}))


@pytest.mark.parametrize("name", ALL)
def test_every_setting_of_an_editor_is_in_the_recipe_and_changes_the_picture(model, name):
    editor = make(name, model)
    source = editor.generate(PROMPT, seed=1, num_steps=4)
    plain = editor.edit(source, EDITS[0])
    assert lasting(plain.recipe) == lasting(editor.edit(source, EDITS[0]).recipe)
    assert set(plain.recipe["editor"]) == {"name", *EDITORS[name].setting_names()}
    for setting in EDITORS[name].setting_names():
        if setting in REFUSED:
            value, message = REFUSED[setting]
            with pytest.raises(StableFlowError, match=message):
                editor.edit(source, EDITS[0], **{setting: value})
            continue
        assert setting in SETTINGS, f"a new setting needs a value here, and to be seen in the recipe: {setting}"
        beside = BESIDE.get((name, setting), {})
        before = editor.edit(source, EDITS[0], **beside) if beside else plain
        changed = editor.edit(source, EDITS[0], **(beside | {setting: SETTINGS[setting]}))
        assert changed.recipe["editor"][setting] != before.recipe["editor"][setting], setting
        if setting not in SAME_LATENTS:
            assert gap(changed.latents, before.latents) > 1e-4, setting


DRAWN = {
    "seed": {"seed": 2}, "latents": {"seed": None, "latents": torch.ones(1, 4, 8, 8)}, "num_steps": {"num_steps": 4},
    "guidance_scale": {"guidance_scale": 1.2}, "height": {"height": 20}, "width": {"width": 20},
    "solver": {"solver": "midpoint"}, "prompt": {"prompt": "a red cat"},
}  # fmt: skip
REAL = {
    "image": {"image": PICTURE.flip(0)}, "prompt": {"prompt": "a red cat"}, "num_steps": {"num_steps": 4},
    "solver": {"solver": {"name": "fixed_point", "iterations": 3}}, "nudge_scale": {"nudge_scale": 1.3},
    "inversion": {"inversion": "paper"}, "guidance_scale": {"guidance_scale": 2.0},
    "height": {"height": 20, "width": 24}, "width": {"height": 16, "width": 20},
}  # fmt: skip
OF_THE_MODEL = {"model", "checkpoint", "dtype", "modifications", "text_length"}


def differing(first, second):
    one, other = first.as_json(), second.as_json()
    return {name for name in one if one[name] != other[name]}


def test_every_argument_of_a_source_is_in_its_fingerprint(model):
    from stableflow.flow.solvers import make_solver

    editor, seen = make("stable-flow", model), set()
    for call, cases, first in (
        (editor.generate, DRAWN, {"prompt": PROMPT, "seed": 1, "num_steps": 3}),
        (editor.invert, REAL, {"image": PICTURE, "prompt": PROMPT, "num_steps": 3}),
    ):
        assert set(cases) == set(inspect.signature(call).parameters) - {"callback", "reference"}  # test_reference
        plain = call(**first).fingerprint
        for name, change in cases.items():
            if isinstance(change.get("solver"), dict):
                change = {"solver": make_solver(change["solver"])}
            differences = differing(plain, call(**(first | change)).fingerprint)
            assert differences, name
            seen |= differences
        seen |= {"inversion"} & differing(plain, call(**first).fingerprint)
    seen |= differing(plain, make("stable-flow", model, layers=[1]).invert(PICTURE, PROMPT, num_steps=3).fingerprint)
    assert seen | OF_THE_MODEL == {field.name for field in dataclasses.fields(Fingerprint)}


ORDERED = {
    "prompt": "a red cat", "seed": 2, "steps": 4, "guidance": 1.2, "height": 20, "width": 20, "solver": "midpoint",
    "to": ["a red cat"], "editor": "reprompt", "set": {"weight": 0.3}, "region": "box:0,0,8,16", "strength": 0.4,
    "edit_guidance": 1.3, "guidance_each": [2.5], "strength_each": [0.4], "keeping": ["red"], "task": "style",
    "layers": [1], "weight": 0.6, "window": (0.4, 1.0), "keep": "share", "preset": "fast",
}  # fmt: skip
REAL_ONLY = {"together": True, "inversion": "paper", "nudge": 1.3, "exact": False, "image": None}
GUARDS = {"version", "image_digest", "expected", "negative"}  # what differs is refused
OF_TRAINED_EDITORS = {"reference", "reference_digests"}  # models/test_reference


def run(model, **values):
    order = Order(**({"prompt": PROMPT, "to": EDITS[:1], "steps": 3, "set": {"layers": [0, 3]}} | values))
    order.check()
    return lasting(order.run(model).recipe)


def test_every_field_of_an_order_is_in_the_recipe_or_refused(model, tmp_path):
    covered = set(ORDERED) | set(REAL_ONLY) | GUARDS | OF_TRAINED_EDITORS | set(SHAPING) | {"together"}
    assert covered == set(Order.model_fields), "a new field needs a value here"
    assert set(SHORT) <= set(Order.model_fields)
    drawn = run(model, seed=1)
    for name, value in ORDERED.items():
        change = {name: value} | ({"set": {}} if name in ("editor", "layers", "task") else {})
        change |= {"set": {"layers": [0, 3], **value}} if name == "set" else {}
        assert run(model, **({"seed": 1} | change)) != drawn, name
    two = {"seed": 1, "to": EDITS, "region": "box:0,0,8,16"}
    assert run(model, **two, together=True) != run(model, **two)
    to_pil(PICTURE).save(tmp_path / "a.png")
    to_pil(PICTURE.flip(0)).save(tmp_path / "b.png")
    first = {"image": tmp_path / "a.png", "region": "box:0,0,8,16"}
    real = run(model, **first)
    for name, value in (REAL_ONLY | {"image": tmp_path / "b.png"}).items():
        assert run(model, **(first | {name: value})) != real, name
    for name, value in {"version": 2, "negative": "in the snow", "image_digest": "0" * 16}.items():
        with pytest.raises((StableFlowError, ValueError)):
            run(model, **(first | {name: value}))


@pytest.mark.parametrize("name", ALL)
def test_a_setting_that_an_editor_has_not_is_refused_and_listed(model, name):
    editor = make(name, model)
    with pytest.raises(StableFlowError, match=f"Unknown setting of {name} 'strenght'.*Did you mean 'strength'"):
        editor.edit(editor.generate(PROMPT, seed=1, num_steps=2), EDITS[0], strenght=0.5)


def test_settings_are_json(model):
    for name in ALL:
        settings = make(name, model).settings()
        assert json.loads(json.dumps(settings)) == settings and "model" not in settings
        assert {"strength", "negative"} <= set(settings) and issubclass(EDITORS[name], Editor)


def test_guidance_of_single_edits_is_repeated(model, tmp_path):
    editor = make("flowedit", model)
    result = editor.edit(editor.generate(PROMPT, seed=1, num_steps=3), [Edit(EDITS[0], guidance_scale=2.0), EDITS[1]])
    plain = editor.edit(editor.generate(PROMPT, seed=1, num_steps=3), EDITS)
    assert gap(result.latents[:1], plain.latents[:1]) > 1e-3 and gap(result.latents[1:], plain.latents[1:]) <= 1e-5
    order = Order.model_validate(from_recipe(result.recipe))
    assert order.guidance_each == [2.0, None]
    assert torch.equal(order.run(model).latents, result.latents)
