"""A real cluster of two machines on this one: one is killed amid the work, and the records are one process's."""

import sys

import pytest

from stableflow.errors import InputError, InterventionError
from stableflow.jobs.cells import Cells
from stableflow.jobs.on_ray import Placement, _resources, run_on_ray
from stableflow.jobs.run import Task, run_tasks

pytest.importorskip("ray", reason="the extra `ray` is not installed")
if sys.platform != "linux":
    pytest.skip("Ray runs several nodes on one machine on Linux alone", allow_module_level=True)


def opening():
    """What opens the work; a function within another travels to workers, which cannot import this file."""

    def open_work():
        import os
        import time

        import ray

        def compute(number):
            if number < 0:
                raise ValueError("a fault of the work")
            if number == 99:
                os._exit(1)
            time.sleep(0.1)
            where = ray.get_runtime_context().get_node_id() if ray.is_initialized() else ""
            return {f"cell-{number}": {"value": number / 7, "node": where}}

        return compute

    return open_work


def tasks(count):
    return [Task((f"cell-{n}",), n) for n in range(count)]


def values(cells, count):
    return [cells[f"cell-{n}"]["value"] for n in range(count)]


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.second = made.add_node(num_cpus=1, resources={"accelerator_type:A100": 1})
    yield made
    made.shutdown()


def test_a_worker_that_kills_itself_is_given_up_and_faults_are_told(cluster, tmp_path):
    cells = Cells(tmp_path, {})
    with pytest.raises(InterventionError, match=r"workers were lost with no result between"):
        run_on_ray([*tasks(2), Task(("cell-99",), 99)], opening(), cells, workers=1, address=cluster.address)
    assert values(cells, 2) == [0, 1 / 7]
    with pytest.raises(InterventionError, match="a fault of the work"):
        run_on_ray([Task(("bad",), -1)], opening(), Cells(None, {}), workers=1, address=cluster.address)


def test_workers_keep_to_machines_with_the_accelerator(cluster):
    cells = Cells(None, {})
    run_on_ray(tasks(2), opening(), cells, workers=1, address=cluster.address, gpu_type="A100")
    assert {record["node"] for record in cells.values()} == {cluster.second.node_id}


def test_an_accelerator_that_no_machine_has_is_told():
    class Ray:
        def cluster_resources(self):
            return {"CPU": 2.0, "GPU": 1.0, "accelerator_type:T4": 1.0}

    with pytest.warns(UserWarning, match=r"has the accelerator 'H100' \(it has: T4\), so workers wait"):
        asked = _resources(Ray(), Placement(workers=2, gpu_type="H100"))
    assert asked == {"num_cpus": 1, "num_gpus": 0.5, "accelerator_type": "H100"}


def test_a_machine_killed_amid_the_work_changes_no_record(cluster, tmp_path, monkeypatch):
    alone, cells, count = Cells(None, {}), Cells(tmp_path, {}), 24
    run_tasks(tasks(count), opening()(), alone)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    nodes = []

    def told(done, total):
        nodes.append({record["node"] for record in cells.values()})
        if len(nodes[-1]) == 2 and cluster.second is not None:
            cluster.remove_node(cluster.second, allow_graceful=False)
            cluster.second = None

    run_on_ray(tasks(count), opening(), cells, workers=2, told=told)
    assert cluster.second is None and len(nodes[-1]) == 2
    assert values(cells, count) == values(alone, count)
    assert values(Cells(tmp_path, {}), count) == values(alone, count)


def test_no_cluster_at_the_address_is_said(monkeypatch):
    import ray

    def refuse(**given):
        raise ConnectionError(f"nothing at {given['address']}")

    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(InputError, match="No Ray cluster answers at '10.0.0.9:6379': nothing at 10.0.0.9:6379"):
        run_on_ray(tasks(1), opening(), Cells(None, {}), workers=1, address="10.0.0.9:6379")
