"""Policies, wishes and orders: data that is checked where it is made."""

import inspect

import pytest
import torch
from pydantic import ValidationError
from quick import EDITS, PROMPT, gap, make

from stableflow.editing.policy import POLICIES, Hold, Policy, make_policy
from stableflow.editing.recipe import as_json, require_repeated
from stableflow.editing.wishes import Edit, as_edits
from stableflow.errors import FingerprintError, InputError, StableFlowError, UnknownNameError
from stableflow.flow.schedule import Schedule
from stableflow.models.base import Conditioning
from stableflow.order import Order, from_recipe


@pytest.mark.parametrize("name", POLICIES)
def test_policies_go_to_json_and_back(name):
    assert make_policy(name) is POLICIES[name] is make_policy(POLICIES[name])
    assert make_policy(as_json(POLICIES[name])) == POLICIES[name]


def test_a_policy_of_every_setting_goes_to_json_and_back():
    policy = Policy(
        (Hold((0, 3), ("value",), "inside", Schedule.parse("1:0.9,0.5:0")), Hold("all", where="outside")),
        pin=Schedule.window(0.2, 0.8),
    )
    assert make_policy(as_json(policy)) == policy


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("kepe", "Unknown policy 'kepe'.*Did you mean 'keep'"),
        ({"hold": [{"layer": "all"}]}, "no policy"),
        ({"hold": [3]}, "no policy"),
        ({"hold": [{"where": "left"}]}, "left"),
        ({"hold": [{"weight": 2}]}, r"weight must lie in \[0, 1\]"),
        ({"hold": [{"parts": ["query"]}]}, "query"),
        ({"pin": -1}, r"pin must lie in \[0, 1\]"),
        ({"pin": "often"}, "no schedule"),
    ],
)
def test_wrong_policies(wrong, message):
    with pytest.raises(StableFlowError, match=message):
        make_policy(wrong)


def test_policies_act(model):
    """Nothing held is plain re-prompting; everything held, with the source's values, comes nearer to it."""
    editor = make("stable-flow", model)
    source = editor.generate(PROMPT, seed=1, num_steps=4)
    free = editor.edit(source, EDITS, policy="free")
    assert gap(free.latents, make("reprompt", model).edit(source, EDITS).latents) <= 1e-5
    held = editor.edit(source, EDITS, policy=Policy((Hold("all"),)))
    assert (held.latents - source.latents).square().mean() < (free.latents - source.latents).square().mean()
    pinned = editor.edit(source, EDITS, policy=Policy(pin=Schedule.constant(1.0)), region="box:0,0,8,16", exact=False)
    assert gap(pinned.latents[..., 4:], source.latents[..., 4:].expand(2, -1, -1, -1)) <= 1e-6
    loose = editor.edit(source, EDITS, policy=Policy(), region="box:0,0,8,16", exact=False)
    assert gap(loose.latents[..., 4:], source.latents[..., 4:]) > 1e-2
    early = editor.edit(source, EDITS, policy=Policy(pin=Schedule.window(0.6, 1)), region="box:0,0,8,16", exact=False)
    assert gap(early.latents, loose.latents) > 1e-4 and gap(early.latents, pinned.latents) > 1e-4


def test_wishes():
    assert as_edits("a cat") == as_edits(["a cat"]) == as_edits(Edit("a cat")) == (Edit("a cat"),)
    assert as_edits(["a cat", Edit("a dog", guidance_scale=2)])[1].guidance_scale == 2
    encoded = Conditioning(("a cat", "a dog"), {"embeds": torch.zeros(2, 3, 4)})
    assert [wish.prompt for wish in as_edits(encoded)] == ["a cat", "a dog"]


@pytest.mark.parametrize("wrong", [3, None, {"a": 1}, [3], ["a cat", None], {"a cat"}])
def test_wrong_wishes(wrong):
    with pytest.raises(InputError, match="prompts must be"):
        inspect.unwrap(as_edits)(wrong)  # without the tests' own check of types


@pytest.mark.parametrize("scale", [-1, float("nan"), "2", True])
def test_wrong_guidance_of_a_wish(scale):
    with pytest.raises(Exception, match="guidance_scale"):
        Edit("a cat", guidance_scale=scale)


def test_a_wish_has_guidance_of_its_own(model):
    editor = make("sdedit", model)
    source = editor.generate(PROMPT, seed=1, num_steps=3)
    both = editor.edit(source, [Edit(EDITS[0], guidance_scale=1.0), EDITS[0]], guidance_scale=4.0)
    assert gap(both.latents[0], both.latents[1]) > 1e-3
    assert gap(both.latents[0], editor.edit(source, EDITS[0], guidance_scale=1.0).latents[0]) <= 1e-5
    assert gap(both.latents[1], editor.edit(source, EDITS[0], guidance_scale=4.0).latents[0]) <= 1e-5


def order(**values):
    return Order(**({"prompt": PROMPT, "to": EDITS[:1], "seed": 1, "steps": 3, "layers": [0, 3]} | values))


def test_an_order_is_json_and_repeats_its_run(model):
    first = order(region="box:0,0,8,16", weight="1:1,0.4:0", window=(0.2, 1.0))
    assert Order.model_validate_json(first.model_dump_json()) == first
    result = first.run(model)
    again = Order(**from_recipe(result.recipe))
    repeated = again.run(model)
    assert torch.equal(repeated.images, result.images)
    require_repeated(again.expected, repeated.source)
    other = Order(**(from_recipe(result.recipe) | {"seed": 2}))
    with pytest.raises(FingerprintError, match="seed was 1 and is 2"):
        require_repeated(other.expected, other.make_source(other.make_editor(model)))


def test_short_names_are_settings():
    assert order(keep="share", window="0.4,1", layers="0,3").settings() == {
        "layers": [0, 3], "t_window": (0.4, 1.0), "kv_memory": "share",
    }  # fmt: skip
    assert order(editor="flowedit", layers=None, edit_guidance=2).settings() == {"target_guidance_scale": 2.0}
    assert order(editor="sdedit", layers=None, edit_guidance=2, set={"seed": 4}).settings() == {
        "guidance_scale": 2.0, "seed": 4,
    }  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0}, {"seed": -1}, {"strength": 1.5}, {"guidance": float("nan")}, {"version": 2}, {"keep": "shelf"},
        {"stepz": 3}, {"window": "1"}, {"layers": "some"}, {"height": 0}, {"dtype": "int8"}, {"inversion": "exact"},
    ],
)  # fmt: skip
def test_wrong_orders(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        order(**wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"editor": "sdedt"}, "Unknown editor 'sdedt'"),
        ({"editor": "sdedit"}, "Unknown setting of sdedit 'layers'"),
        ({"set": {"etta": 1}}, "Unknown setting of stable-flow 'etta'"),
        ({"solver": "rk9"}, "Unknown solver"),
        ({"region": "bxo:1"}, "Unknown kind of region"),
        ({"region": "mask:none.png"}, "There is no file"),
    ],
)
def test_what_is_checked_before_a_model_is_loaded(wrong, message):
    with pytest.raises((InputError, UnknownNameError, ValueError), match=message):
        order(**wrong).check()


DAMAGES = {
    "no source": lambda recipe: recipe.pop("source"),
    "no edits": lambda recipe: recipe.pop("edits"),
    "no name": lambda recipe: recipe["editor"].pop("name"),
    "no times": lambda recipe: recipe["source"].pop("times"),
    "no mapping": lambda recipe: recipe.update(source=3),
    "a list": lambda recipe: recipe.update(editor=[]),
    "no seed": lambda recipe: recipe["source"].update(seed=None),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_recipes_are_one_error(model, damage):
    recipe = order().run(model).recipe
    damage(recipe)
    with pytest.raises(InputError):
        from_recipe(recipe)
