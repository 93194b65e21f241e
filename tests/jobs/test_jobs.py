"""Long jobs: killed at any moment they go on, and end with the very same numbers."""

import subprocess
import sys
import time

import pytest

from stableflow.errors import LoadError
from stableflow.jobs.cells import Cells
from stableflow.jobs.on_ray import run_on_ray
from stableflow.jobs.run import Task, run_tasks

JOB = """
import sys, time
from pathlib import Path
from stableflow.jobs.cells import Cells
from stableflow.jobs.run import Task, run_tasks

def compute(number):
    time.sleep(0.02)
    return {f"cell-{number}-{i}": {"value": (number * 10 + i) / 7} for i in range(3)}

folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
cells = Cells(folder, {"job": "numbers"})
print("ready", flush=True)
tasks = [Task(tuple(f"cell-{n}-{i}" for i in range(3)), n) for n in range(40)]
assert run_tasks(tasks, compute, cells)
print({key: cells[key]["value"] for task in tasks for key in task.keys})
"""


def test_killed_ten_times_it_ends_with_the_same_numbers(tmp_path):
    uninterrupted = subprocess.run([sys.executable, "-c", JOB], capture_output=True, text=True, check=True).stdout
    kills = 0
    while kills < 10:
        process = subprocess.Popen([sys.executable, "-c", JOB, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        process.stdout.readline()
        time.sleep(0.003 + 0.007 * kills)
        assert process.poll() is None
        process.kill()
        process.wait()
        kills += 1
    done = len(list((tmp_path / "cells").glob("*.json")))
    resumed = subprocess.run([sys.executable, "-c", JOB, str(tmp_path)], capture_output=True, text=True, check=True)
    assert 0 < done < 120 and resumed.stdout == uninterrupted


def test_what_is_done_is_not_done_again(tmp_path):
    calls = []

    def compute(number):
        calls.append(number)
        return {f"cell-{number}": {"value": number}}

    tasks = [Task((f"cell-{n}",), n) for n in range(5)]
    run_tasks(tasks[:3], compute, Cells(tmp_path, {}))
    told = []
    assert run_tasks(tasks, compute, Cells(tmp_path, {}), told=lambda done, total: told.append((done, total)))
    assert calls == [0, 1, 2, 3, 4] and told[-1] == (5, 5)


def test_damaged_cells_are_named(tmp_path):
    cells = Cells(tmp_path, {})
    cells.put("a", {"x": 1})
    (tmp_path / "cells" / "a.json").write_text("{")
    with pytest.raises(LoadError, match=r"a\.json is damaged"):
        Cells(tmp_path, {})


def test_ray_workers_do_the_same():
    pytest.importorskip("ray", reason="the extra `ray` is not installed")

    def open_double():
        return lambda number: {f"cell-{number}": {"value": 2 * number}}

    cells, tasks = Cells(None, {}), [Task((f"cell-{n}",), n) for n in range(6)]
    cells.put("cell-0", {"value": "kept"})
    run_on_ray(tasks, open_double, cells, workers=2)
    assert [cells[f"cell-{n}"]["value"] for n in range(6)] == ["kept", 2, 4, 6, 8, 10]
