"""What goes between door and replicas, sessions on disk, and which replica a request goes to."""

import asyncio
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from app_tools import BLUE, DOG, PICTURE, QUICK
from PIL import Image

from stableflow.app.desk import Job
from stableflow.app.limits import Limits
from stableflow.app.saved import SavedSources
from stableflow.app.studio import Studio
from stableflow.editing.stack import Stroke
from stableflow.order import Order
from stableflow.serving.wire import asked_of, order_of

GREEN = DOG.replace("red", "green")


def test_an_order_arrives_with_its_files(tmp_path):
    picture, mask = tmp_path / "given", tmp_path / "mask"
    for file in (picture, mask):
        file.write_bytes(PICTURE.read_bytes())
    order = Order(prompt=DOG, image=picture, to=[BLUE], region=f"~mask:{mask}", strength=0.7)
    asked = asked_of("edit", order, "ann")
    assert str(tmp_path) not in str(asked.values)
    there = tmp_path / "there"
    there.mkdir()
    arrived = order_of(asked, there)
    assert arrived.image == there / "given" and arrived.image.read_bytes() == PICTURE.read_bytes()
    assert arrived.region == f"~mask:{there / 'mask'}"
    left = {"image", "region"}
    assert arrived.model_dump(exclude=left) == order.model_dump(exclude=left)
    assert arrived.model_fields_set == order.model_fields_set
    moved = asked_of("edit", Order(prompt=DOG, seed=1, set={"moves": [{"region": f"mask:{mask}", "dx": 3}]}), "ann")
    assert order_of(moved, there).set["moves"] == [{"region": f"mask:{there / 'mask'}", "dx": 3}]


def test_edits_share_a_batch_where_each_is_what_it_is_alone():
    def together(owner="ann", **given):
        return asked_of("edit", Order(prompt=DOG, seed=1, **given), owner).together

    shared = together(to=[BLUE])
    assert shared is not None and shared == together(to=[GREEN])
    others = [
        together(to=[BLUE], strength=0.5), together("bob", to=[BLUE]), together(to=[BLUE], steps=4),
    ]  # fmt: skip
    assert None not in others and len({shared, *others}) == 4
    for alone in ({"strength": "auto"}, {"task": "remove"}, {"editor": "sdedit"}, {"region": "change"}):
        assert together(to=[BLUE], **alone) is None


def test_requests_of_one_session_agree_on_it_whatever_is_edited():
    def session(owner="ann", **given):
        return asked_of("edit", Order(**{"prompt": DOG, "seed": 1, **given}), owner).session

    assert session(to=[BLUE]) == session(to=[GREEN], strength=0.3)
    assert len({session(), session("bob"), session(seed=2), session(steps=4)}) == 4


def test_a_batch_is_taken_apart_into_what_each_asked_for(tiny):
    pytest.importorskip("grpc", reason="the extra `serve` is not installed")
    from stableflow.serving.replica import performed

    studio = Studio(tiny, {"model": "tiny"}, Limits())
    asked = [asked_of("edit", Order(**QUICK | {"to": to}), "ann") for to in ([BLUE], [GREEN, DOG])]
    one, two = performed(studio, asked, Job("ann", None))
    alone = Order(**QUICK | {"to": [GREEN, DOG]}).run(tiny)
    assert len(one.leanings) == 1 and len(two.leanings) == 2
    assert one.result.prompts == (BLUE,) and two.result.prompts == (GREEN, DOG)
    assert len(two.result.images) == 2 and (two.result.images - alone.images).abs().max() < 1e-4
    assert (one.result.images[0] - two.result.images[0]).abs().max() > 0.05
    for name in ("edits", "guidance_scale", "shift", "layers", "region"):
        assert two.result.recipe[name] == alone.recipe[name], name
    assert two.result.source.store is None and two.result.source.latents.equal(alone.source.latents)


def test_layers_are_drawn_far_away_with_their_masks_and_kept_there(tiny, tmp_path):
    pytest.importorskip("grpc", reason="the extra `serve` is not installed")
    from stableflow.serving.replica import performed

    mask = tmp_path / "mask"
    Image.new("L", (64, 64), 255).crop((0, 0, 64, 64)).save(mask, format="PNG")
    order = Order(prompt=DOG, seed=1, steps=2)
    strokes = [Stroke(BLUE, f"mask:{mask}", seed=1, strength=0.9), Stroke(GREEN, "box:0,0,32,32", seed=2)]
    asked = asked_of("layers", order, "ann", strokes=strokes)
    assert str(tmp_path) not in str(asked.strokes)
    studio = Studio(tiny, {"model": "tiny"}, Limits())
    [far] = performed(studio, [asked], Job("ann", None))
    [again] = performed(studio, [asked_of("layers", order, "ann", strokes=strokes)], Job("ann", None))
    near = Studio(tiny, {"model": "tiny"}, Limits()).layers(order, strokes, Job("ann", None))
    assert far.result.images.equal(near.result.images) and list(far.drawn) == [True, True]
    assert list(again.drawn) == [False, False] and far.result.source.store is None
    assert far.result.recipe["edits"] == near.result.recipe["edits"]


def test_sessions_come_from_the_disk_and_the_oldest_go(tiny, tmp_path):
    def studio(most=2**30):
        return Studio(tiny, {"model": "tiny"}, Limits(), SavedSources(tmp_path, most))

    made = studio().edit(Order(**QUICK), Job("ann", None))
    again = studio().edit(Order(**QUICK), Job("ann", None))
    assert not made.kept and again.kept and again.result.images.equal(made.result.images)
    assert not studio().edit(Order(**QUICK), Job("bob", None)).kept
    (damaged, _) = tmp_path.glob("*/source.safetensors")
    damaged.write_bytes(b"torn")
    kept = [studio().source(Order(**QUICK), Job(owner, None))[1] for owner in ("ann", "bob")]
    assert sorted(kept) == [False, True]
    studio(most=1).source(Order(**QUICK | {"seed": 9}), Job("eve", None))
    assert len(list(tmp_path.glob("*"))) == 1
    assert studio().source(Order(**QUICK | {"seed": 9}), Job("eve", None))[1]


@dataclass(frozen=True)
class Identity:
    """As Serve's replicas have one."""

    unique_id: str


def test_a_session_stays_with_its_replica_and_moves_alone_when_that_goes():
    pytest.importorskip("grpc", reason="the extra `serve` is not installed")
    from stableflow.serving.router import SessionRouter

    def router(names, loaded=()):
        made = object.__new__(SessionRouter)
        made._num_virtual_nodes, made._num_fallback_replicas, made._deployment_id = 100, len(names) - 1, None
        ids = [Identity(name) for name in names]
        made._replicas = {
            one: SimpleNamespace(name=one.unique_id, multiplexed_model_ids={"m"} if one.unique_id in loaded else set())
            for one in ids
        }
        made._rebuild_ring(frozenset(ids))
        return made

    def tried(made, session, model=""):
        metadata = SimpleNamespace(session_id=session, multiplexed_model_id=model, internal_request_id="x")
        pending = SimpleNamespace(metadata=metadata, routing_context=SimpleNamespace(should_backoff=False))
        ranks = asyncio.run(made.choose_replicas(list(made._replicas.values()), pending))
        return [replica.name for (replica,) in ranks]

    made, fewer = router("abc"), router("ab")
    sessions = [f"session {number}" for number in range(60)]
    homes = {session: tried(made, session)[0] for session in sessions}
    assert set(homes.values()) == set("abc") and homes == {s: tried(made, s)[0] for s in sessions}
    assert all(tried(fewer, s)[0] == homes[s] for s in sessions if homes[s] != "c")
    assert all(tried(router("abc", loaded="b"), s, "m")[0] == "b" for s in sessions[:5])
