"""A real replica on Ray Serve behind the app's door: killed amid an edit, nothing is lost and no bit differs."""

import sys
import threading
import time

import pytest

pytest.importorskip("ray", reason="the extra `serve` is not installed")
pytest.importorskip("grpc", reason="the extra `serve` is not installed")
if sys.platform != "linux":
    pytest.skip("Ray Serve is tested on Linux alone", allow_module_level=True)

from app_tools import QUICK, Guest, serving

from stableflow.app.desk import Job
from stableflow.app.limits import Limits
from stableflow.errors import InputError
from stableflow.jobs.on_ray import Placement, connected
from stableflow.order import Order
from stableflow.serving import application

LONG = {"prompt": QUICK["prompt"], "seed": 1, "steps": 24, "to": QUICK["to"]}


def opening():
    """What opens the model; a function within another travels to replicas, which cannot import this file."""

    def open_model():
        import torch

        import stableflow as sf

        torch.set_num_threads(1)
        return sf.load("tiny")

    return open_model


def kill_replica():
    import ray
    from ray.util import list_named_actors

    name = next(a["name"] for a in list_named_actors(all_namespaces=True) if a["name"].startswith("SERVE_REPLICA::"))
    ray.kill(ray.get_actor(name, namespace="serve"), no_restart=True)


@pytest.fixture(scope="module")
def far(tmp_path_factory):
    limits = Limits(rate=100_000, waiting=4, waiting_each=4)
    models = {"tiny": (opening(), {"model": "tiny"})}
    served = application.Serving(models, sessions=tmp_path_factory.mktemp("sessions"), batch=2, drain=5.0)
    with connected(Placement(1)):
        yield application.start(served, limits)["tiny"]
        application.stop(served.name)


def test_a_replica_killed_amid_an_edit_loses_nothing_and_changes_no_bit(far, tiny):
    wanted = {name: Order(**ask).run(tiny).images for name, ask in (("quick", QUICK), ("long", LONG))}
    first, again = (far.edit(Order(**QUICK), Job("ann", None)) for _ in range(2))
    assert not first.kept and again.kept and first.result.images.equal(wanted["quick"])
    far.session(Order(**LONG), Job("ann", None))
    job, answers = Job("ann", None), []
    asking = threading.Thread(target=lambda: answers.append(far.edit(Order(**LONG), job)))
    asking.start()
    time.sleep(0.3)
    kill_replica()
    asking.join(250)
    assert answers[0].kept, "its session was on the disk"
    assert answers[0].result.images.equal(wanted["long"])
    stranger = far.edit(Order(**QUICK), Job("bob", None))
    assert not stranger.kept and stranger.result.images.equal(wanted["quick"])


def test_the_door_serves_pages_and_says_when_it_is_full(far, tmp_path):
    limits = Limits(rate=100_000, waiting=4, waiting_each=4)
    with serving(None, tmp_path, limits=limits, workshops={"tiny": far}, hands=4) as house:
        guest = Guest(house.base)
        made = guest.edit(QUICK)
        assert guest.file(made, "thumb.png") and made["runs"][0]["pictures"][0]["prompt"] == QUICK["to"][0]
        jobs = [
            guest.submit("edit", QUICK | {"steps": 12, "to": [text]})
            for text in ("a cat", "a dog", "a bird", "a fox", "a cow")
        ]
        assert [job.status_code for job in jobs] == [202] * 4 + [429]
        assert int(jobs[-1].headers["retry-after"]) >= 1
        cancelled = guest.http.delete(f"/api/jobs/{jobs[0].json()['id']}").json()
        assert guest.outcome(cancelled)["state"] == "cancelled"
        assert [guest.outcome(job.json())["state"] for job in jobs[1:4]] == ["done"] * 3
        told = guest.http.get("/metrics").text
        assert 'outcome="done"} 4' in told and 'outcome="refused"} 1' in told and 'outcome="cancelled"} 1' in told


def test_a_fault_in_a_replica_is_told_as_it_is(far):
    with pytest.raises(InputError, match=r"layers \[999\] are out of range"):
        far.edit(Order(**QUICK, set={"layers": [999]}), Job("ann", None))
