"""The queue: turns, limits, cancelling within a step, time, and errors that help."""

import gc
import threading
import time

import pytest
import torch
from app_tools import QUICK

from stableflow.app.desk import Busy, Desk
from stableflow.app.limits import Limits
from stableflow.errors import InputError


def steps(desk_go, job, count=1000):
    """Work of many steps, each waiting to be let go."""
    for _ in range(count):
        desk_go.wait(0.005)
        job.check()


@pytest.fixture
def desk():
    desk = Desk(Limits(waiting=3, waiting_each=2), lambda: None, lambda error: None)
    desk.open()
    yield desk
    desk.close()


def finish(job):
    for _ in range(2000):
        if job.over:
            return job
        time.sleep(0.005)
    raise AssertionError(f"still {job.state}")


def test_a_running_job_is_cancelled_within_a_step_and_the_next_runs(desk):
    go = threading.Event()
    long, short = desk.submit("a", lambda job: steps(go, job)), desk.submit("a", lambda job: "short")
    assert desk.ahead(short) == 1
    desk.cancel(long)
    assert finish(long).state == "cancelled" and finish(short).result == "short"


def test_a_waiting_job_is_cancelled_at_once(desk):
    go = threading.Event()
    long, waiting = desk.submit("a", lambda job: steps(go, job)), desk.submit("a", lambda job: 1)
    desk.cancel(waiting)
    assert waiting.state == "cancelled" and desk.ahead(waiting) == 0
    desk.cancel(long)


def test_the_queue_and_each_visitor_have_a_limit(desk):
    go = threading.Event()
    jobs = [desk.submit("a", lambda job: steps(go, job)) for _ in range(2)]
    with pytest.raises(Busy, match="one visitor"):
        desk.submit("a", lambda job: 1)
    jobs.append(desk.submit("b", lambda job: 1))
    with pytest.raises(Busy, match="try again") as refused:
        desk.submit("c", lambda job: 1)
    assert refused.value.retry_after >= 1
    for job in jobs:
        desk.cancel(job)


def test_nobody_finds_anothers_job(desk):
    job = desk.submit("a", lambda job: 1)
    assert desk.find("b", job.id) is None and desk.find("a", job.id) is job


def test_a_job_that_runs_too_long_says_what_to_do():
    desk = Desk(Limits(seconds=0.05), lambda: None, lambda error: None)
    desk.open()
    job = finish(desk.submit("a", lambda job: steps(threading.Event(), job)))
    assert job.state == "failed" and "smaller picture" in job.error
    desk.close()


@pytest.mark.parametrize(
    "error, told",
    [
        (InputError("give a number"), "give a number"),
        (torch.OutOfMemoryError("CUDA out of memory"), "In this order: fewer changes"),
        (MemoryError(), "In this order: fewer changes"),
        (ZeroDivisionError("/secret/path"), "ZeroDivisionError"),
    ],
)
def test_errors_become_messages_and_the_desk_goes_on(desk, error, told):
    def fails(job):
        raise error

    job = finish(desk.submit("a", fails))
    assert job.state == "failed" and told in job.error and "/secret" not in job.error
    assert finish(desk.submit("a", lambda job: 7)).result == 7


def test_a_model_that_cannot_be_loaded_is_told():
    told = []

    def broken():
        raise InputError("no such model")

    desk = Desk(Limits(), broken, told.append)
    desk.open()
    desk.close()
    assert str(told[0]) == "no such model"


def tensor_bytes():
    gc.collect()
    tensors = (one for one in gc.get_objects() if type(one) in (torch.Tensor, torch.nn.Parameter))
    return sum(one.nbytes for one in tensors if one.layout == torch.strided)


def test_a_cancelled_run_gives_its_memory_back_within_a_step(guest):
    guest.edit(QUICK)
    before = tensor_bytes()
    job = guest.submit("edit", QUICK | {"steps": 100, "seed": 77}).json()
    while job["step"] < 3:
        job = guest.http.get(f"/api/jobs/{job['id']}", params={"seen": job["version"]}).json()
    during = tensor_bytes()
    guest.http.delete(f"/api/jobs/{job['id']}")
    over = guest.outcome(job)
    assert over["state"] == "cancelled" and over["step"] <= job["step"] + 3
    assert during > before >= tensor_bytes()


def test_a_cancelled_edit_leaves_the_model_as_it_was(guest, house):
    wanted = guest.edit(QUICK)
    job = guest.submit("edit", QUICK | {"steps": 100, "seed": 5}).json()
    while job["step"] < 2:
        job = guest.http.get(f"/api/jobs/{job['id']}", params={"seen": job["version"]}).json()
    guest.http.delete(f"/api/jobs/{job['id']}")
    over = guest.outcome(job)
    assert over["state"] == "cancelled" and over["step"] <= job["step"] + 3
    again = guest.edit(QUICK)
    assert guest.file(again, "thumb.png") == guest.file(wanted, "thumb.png")
    assert len(guest.http.get("/api/history").json()) == 2
