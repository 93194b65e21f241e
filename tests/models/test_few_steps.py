"""Steps and guidance of few-step models, where an order gives none; plans of keys and values."""

import pytest
import torch
from plans import BEGIN, DOCS, END, table
from tiny_flux import tiny_flux_pipeline

import stableflow as sf
from stableflow.cli.plan import card_plans
from stableflow.cli.usual import CAREFUL, with_usual
from stableflow.models.few_steps import usual
from stableflow.models.known import KNOWN
from stableflow.models.memory_plan import kv_bytes, kv_plan, weighed
from stableflow.order import Order

WANTED = {"prompt": "a dog", "to": ["a cat"]}


@pytest.mark.parametrize("name", KNOWN)
def test_what_an_order_leaves_open_is_the_makers(name):
    order, told = with_usual(Order(model=name, **WANTED))
    assert (order.steps, order.guidance) == (KNOWN[name].steps, KNOWN[name].guidance)
    assert name in told and "--steps" in told
    given = Order(model=name, steps=3, guidance=2.0, edit_guidance=2.0, **WANTED)
    assert with_usual(given) == (given, ""), "what is given stays"


def test_a_picture_is_inverted_in_few_steps_by_models_for_few(tmp_path):
    few, told = with_usual(Order(model="flux-schnell", image=tmp_path / "a.png", **WANTED))
    assert (few.steps, few.solver, few.edit_guidance) == (4, CAREFUL, 1.0) and "fixed_point x3" in told
    many, _ = with_usual(Order(model="flux-dev", image=tmp_path / "a.png", **WANTED))
    assert (many.steps, many.solver, many.edit_guidance) == (None, None, None)
    sped, _ = with_usual(Order(model="flux-schnell", image=tmp_path / "a.png", preset="fast", **WANTED))
    assert (sped.steps, sped.solver) == (None, None)


def test_loras_that_distil_say_how_many_steps():
    lora = "lightx2v/Qwen-Image-Lightning/Qwen-Image-Lightning-8steps-V1.0.safetensors:1.0"
    assert with_usual(Order(model="qwen-image", lora=lora, **WANTED))[0].steps == 8
    assert with_usual(Order(model="qwen-image", lora="detail.safetensors", **WANTED))[0].steps == 50
    assert usual("tiny") is None and with_usual(Order(**WANTED)) == (Order(**WANTED), "")


def test_the_table_of_plans_is_in_the_docs():
    assert DOCS.read_text().split(BEGIN)[1].split(END)[0] == table()


def test_keys_and_values_are_planned_as_they_are_kept(tmp_path):
    """Of a real run at tiny size, scaled: tokens are 16 pixels in plans and 4 here, numbers 2 bytes and 4."""
    pipeline = tiny_flux_pipeline()
    pipeline.save_pretrained(tmp_path)
    model = sf.wrap(pipeline, name="x")
    source = sf.StableFlow(model, layers=[0, 3], kv_memory="cpu").generate("a red dog", seed=1, num_steps=3)
    side = 16 * (16 // model.pixel_multiple)
    planned = kv_bytes(weighed(tmp_path), layers=2, steps=3, height=side, width=side)
    assert source.store.num_bytes == 2 * planned
    assert model.dtype is torch.float32


def test_keys_and_values_go_where_there_is_room():
    size, steps = 10 * 10**9, 10
    kept = {room: kv_plan(size, steps, room, main_memory=20 * 10**9) for room in (11 * 10**9, 10**10 - 1, 10**9)}
    ways = [(plan.place, plan.precision) for plan in kept.values()]
    assert ways == [("device", "exact"), ("cpu", "exact"), ("cpu", "fp8")]
    assert kept[10**10 - 1].on_card == 2 * 10**9, "the step that runs and the one that is fetched"
    half = kv_plan(size, steps, 6 * 10**9, main_memory=0)
    assert (half.place, half.precision, half.on_card) == ("device", "fp8", 5 * 10**9)
    assert kv_plan(size, steps, 11 * 10**9, main_memory=20 * 10**9, place="disk").place == "disk"
    assert kv_plan(size, steps, 2 * 10**9, main_memory=0).place == "disk"


def test_a_dry_run_says_where_keys_and_values_go():
    plan = card_plans(Order(model="flux-dev", steps=50, **WANTED), "16g")
    assert plan["keys and values"] == "22.6 GB in main memory, fetched a step ahead; 9 layers, 50 steps"
    assert float(plan["steps"].split()[0]) <= 16
    assert "MB a layer and step" in card_plans(Order(model="z-image", **WANTED), "24g")["keys and values"]
