"""Serving under load, measured by hand: PYTHONPATH=tests/app python tests/serving/load.py [EDITS [REPLICAS [BATCHES]]].

Starts replicas of the bundled model on this machine and asks the door over HTTP: throughput by batch size with one
picture and sixteen requests at a time; random arrivals at .6 of what the replicas can do, beside the simulator with the
times that were measured; and a replica killed under load. Every picture of single edits is compared with the Python
API's alone.
"""

import dataclasses
import hashlib
import io
import json
import random
import statistics
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from app_tools import DOG, Guest, serving
from PIL import Image
from test_replicas import kill_replica, opening

import stableflow as sf
from stableflow.app.limits import Limits
from stableflow.jobs.on_ray import Placement, connected
from stableflow.serving import application
from stableflow.serving.simulate import Assumptions, simulate

COLOURS, STEPS, AT_ONCE = ["blue", "green", "black", "white", "yellow"], 4, 16
LIMITS = Limits(rate=1e6, waiting=400, waiting_each=400, history=5000, sources=8)


def ask(number, seed=1):
    return {"prompt": DOG, "seed": seed, "to": [DOG.replace("red", COLOURS[number % 5])], "steps": STEPS}


class Door:
    """The app over the replicas, and what came of each request: when, how long, how many rows, which picture."""

    def __init__(self, house):
        self.base, self.answers, self.refused = house.base, [], 0
        self._mine = threading.local()
        self.token = Guest(house.base)
        self.token.http.get("/api/history")

    def edit(self, number, seed=1):
        guest = self._mine.__dict__.setdefault("guest", Guest(self.base, cookies=dict(self.token.http.cookies)))
        began = time.time()
        entry = guest.edit(ask(number, seed))
        took = time.time() - began
        run = entry["runs"][0]
        pixels = Image.open(io.BytesIO(guest.file(entry, "0/edit_1.png"))).tobytes()
        said = {"number": number % 5, "seed": seed, "took": took, "kept": run["kept"], "seconds": run["seconds"]}
        self.answers.append(said | {"rows": run["nfe"]["rows"], "digest": hashlib.sha256(pixels).hexdigest()})

    def closed(self, count, at_once=AT_ONCE, meanwhile=lambda done: None):
        """So many edits, a new one as soon as one is done."""
        began, self.answers = time.time(), []
        with ThreadPoolExecutor(at_once) as pool:
            for future in [pool.submit(self.edit, number) for number in range(count)]:
                future.result()
                meanwhile(len(self.answers))
        return time.time() - began

    def arriving(self, count, rate, sessions, seed=0):
        """So many edits at random times."""
        draw, self.answers = random.Random(seed), []
        with ThreadPoolExecutor(64) as pool:
            futures = []
            for number in range(count):
                time.sleep(draw.expovariate(rate))
                futures.append(pool.submit(self.edit, number, 1 + draw.randrange(sessions)))
            for future in futures:
                future.result()

    def quantiles(self):
        took = sorted(answer["took"] for answer in self.answers)
        return {"p50 s": round(took[len(took) // 2], 2), "p95 s": round(took[int(0.95 * len(took))], 2)}


def wrong(answers):
    """How many pictures differ from those of the Python API alone."""
    editor, alone = sf.StableFlow(sf.load("tiny")), {}
    for seed in sorted({answer["seed"] for answer in answers}):
        source = editor.generate(DOG, seed=seed, num_steps=STEPS)
        for number in range(5):
            made = sf.to_pil(editor.edit(source, ask(number)["to"]).images[0])
            alone[seed, number] = hashlib.sha256(made.tobytes()).hexdigest()
    return sum(alone[answer["seed"], answer["number"]] != answer["digest"] for answer in answers)


def against_simulator(door, edits, replicas):
    """Random arrivals, measured and simulated with this run's own times."""
    door.arriving(8, 100.0, 8)  # every session is made
    before = [answer for answer in door.answers if not answer["kept"]]
    source = statistics.mean(answer["seconds"] for answer in before) if before else 0.0
    door.closed(10, at_once=1)
    edit = statistics.mean(answer["seconds"] for answer in door.answers)
    beside = statistics.mean(answer["took"] - answer["seconds"] for answer in door.answers)
    rate = 0.6 * replicas / edit
    door.arriving(edits, rate, 8)
    times = [answer["seconds"] for answer in door.answers if answer["kept"]]
    mean = statistics.mean(times)
    given = Assumptions(
        rate=rate, sessions=8, replicas=replicas, kept=8, edit=mean, source=max(0.0, source - edit), door=beside,
        spread=tuple(took / mean for took in times),
    )  # fmt: skip
    assumed = {name: value for name, value in dataclasses.asdict(given).items() if name != "spread"}
    simulated = simulate(given, 4000).summary()
    days = [simulate(given, edits, seed).summary() for seed in range(400)]  # as short as the measured one
    ranges = {
        name: [round(sorted(day[name] for day in days)[place], 2) for place in (20, 379)] for name in ("p50 s", "p95 s")
    }
    return {
        "measured": door.quantiles(), "simulated": {name: simulated[name] for name in ("p50 s", "p95 s", "busy")},
        "nine in ten days of so many requests": ranges,
        "assumed": {name: round(value, 3) if isinstance(value, float) else value for name, value in assumed.items()},
        "wrong": wrong(door.answers),
    }  # fmt: skip


def main(edits=60, replicas=1, batches="1,2,4,8"):
    edits, replicas, batches = int(edits), int(replicas), [int(batch) for batch in batches.split(",")]
    told = {}
    with tempfile.TemporaryDirectory() as folder, connected(Placement(replicas + 1)):
        models = {"tiny": (opening(), {"model": "tiny"})}
        served = application.Serving(models, replicas=replicas, sessions=Path(folder) / "sessions", drain=10.0)
        for batch in batches:
            began = time.time()
            now = dataclasses.replace(served, batch=batch)  # the same name: the replicas are rolled over
            far = application.start(now, LIMITS)
            started = time.time() - began
            with serving(None, Path(folder) / str(batch), limits=LIMITS, workshops=far, hands=now.hands) as house:
                door = Door(house)
                door.closed(2)
                seconds = door.closed(edits)
                rows = statistics.mean(answer["rows"] for answer in door.answers)
                told[f"batch {batch}"] = {
                    "a second": round(edits / seconds, 2), "rows": round(rows, 2), **door.quantiles(),
                    "differ in a bit": wrong(door.answers), "start s": round(started, 1),
                }  # fmt: skip
                print(json.dumps(told[f"batch {batch}"]), flush=True)  # noqa: T201
                if batch == 1:
                    told["arrivals"] = against_simulator(door, edits, replicas)
        killed = []

        def kill(done):
            if done > edits // 3 and not killed:
                killed.append(kill_replica())

        far = application.start(dataclasses.replace(served, replicas=2), LIMITS)
        with serving(None, Path(folder) / "killed", limits=LIMITS, workshops=far, hands=4) as house:
            door = Door(house)
            seconds = door.closed(edits, meanwhile=kill)
            lost = edits - len(door.answers)
            told["killed"] = {"edits": edits, "lost": lost, "wrong": wrong(door.answers), "seconds": round(seconds, 1)}
            told["killed"] |= door.quantiles()
        application.stop(served.name)
    print(json.dumps(told, indent=1))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
