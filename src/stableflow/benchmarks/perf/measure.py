"""Times of the published way and of a session side by side, the engine's own overhead, and memory."""

import gc
import os
import statistics
import time
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stableflow.benchmarks.perf.reference import draw_and_edit, invert_and_edit
from stableflow.editing.methods.stable_flow import StableFlow
from stableflow.editing.passes import CountedVelocity, standard_noise
from stableflow.editing.presets import PRESETS
from stableflow.editing.source import Source
from stableflow.flow.integrate import integrate
from stableflow.flow.solvers import Euler
from stableflow.interventions import InjectKV, KVStore, RecordKV
from stableflow.models.latents import pack
from stableflow.models.model import DiffusersModel

PROMPT = "a white cat sitting on the grass at noon"
EDITS = ("a white cat standing on the grass at noon", "a white cat sitting on the beach at noon")

TARGETS = {
    "further edit, real picture, exact": 2.9,
    "first edit, real picture, exact": 1.4,
    "further edit, real picture, balanced": 6.0,
    "further edit, real picture, fast": 12.0,
}

Clock = Callable[[], float]


@dataclass(frozen=True)
class Comparison:
    """Seconds of two ways of the same, medians, and the median of the ratios of neighbouring runs.

    Args:
        what: In words.
        reference, ours: Seconds.
        ratio: Reference over ours: how many times as fast.
        low, high: Smallest and largest ratio.
        target: What the ratio should reach, where that was said beforehand.
        runs: Of each way.
    """

    what: str
    reference: float
    ours: float
    ratio: float
    low: float
    high: float
    target: float | None
    runs: int


def clock_for(device: torch.device) -> Clock:
    """Return a clock: the process's own seconds on a CPU, which is shared with others, and finished work elsewhere."""
    if device.type != "cuda":
        return time.process_time

    def finished() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return finished


def interleaved(
    ways: Mapping[str, Callable[[], Any]], *, rounds: int, clock: Clock, warm: bool = True
) -> dict[str, list[float]]:
    """Run all ways in turn, round after round, every other round backwards; return the seconds of each run."""
    for way in ways.values() if warm else ():
        way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in list(ways)[:: -1 if number % 2 else 1]:
            started = clock()
            ways[name]()
            seconds[name].append(clock() - started)
    return seconds


def compared(what: str, reference: list[float], ours: list[float], target: float | None) -> Comparison:
    """Sum up interleaved runs."""
    ratios = [theirs / own for theirs, own in zip(reference, ours)]
    return Comparison(
        what,
        statistics.median(reference),
        statistics.median(ours),
        statistics.median(ratios),
        min(ratios),
        max(ratios),
        target,
        len(ratios),
    )


def of_drawn(editor: StableFlow, *, num_steps: int, rounds: int) -> tuple[list[Comparison], bool]:
    """Return the ratio for a further edit, one edit a request, and whether it is the first one to the last bit."""
    model, layers, edit = editor.model, editor.chosen_layers, EDITS[0]
    source = editor.generate(PROMPT, seed=1, num_steps=num_steps)
    first = editor.edit(source, edit).latents
    seconds = interleaved(
        {
            "published": lambda: draw_and_edit(model, layers, PROMPT, [edit], seed=1, num_steps=num_steps),
            "further": lambda: editor.edit(source, edit),
        },
        rounds=rounds,
        clock=clock_for(model.device),
        warm=False,  # the source and its first edit were drawn above
    )
    exact = torch.equal(first, editor.edit(source, edit).latents)
    return [compared("further edit, drawn source", seconds["published"], seconds["further"], 1.9)], exact


def of_real(
    model: DiffusersModel, layers: Sequence[int], image: Any, *, rounds: int, presets: Sequence[str] = tuple(PRESETS)
) -> tuple[list[Comparison], bool]:
    """Return the ratios of first and further edits of a picture under each preset, and whether further ones are exact.

    The published way always takes the paper's 50 steps.
    """
    editors = {name: StableFlow(model, layers=layers, preset=name) for name in presets}
    sources: dict[str, Source] = {}
    firsts: dict[str, Tensor] = {}
    same: list[bool] = []

    def first(name: str) -> None:
        sources[name] = editors[name].invert(image, PROMPT)
        firsts[name] = editors[name].edit(sources[name], EDITS[0]).latents

    def further(name: str) -> None:
        same.append(torch.equal(firsts[name], editors[name].edit(sources[name], EDITS[0]).latents))

    ways: dict[str, Callable[[], Any]] = {}
    for name in presets:
        ways[f"first edit, real picture, {name}"] = partial(first, name)
        ways[f"further edit, real picture, {name}"] = partial(further, name)
    ways[""] = lambda: invert_and_edit(model, layers, image, PROMPT, EDITS[:1])
    model.velocity(  # the one thing that all ways have in common, to warm up
        torch.randn(1, *model.latent_shape(*model.default_size)).to(model.device),
        0.5,
        model.encode_prompt([PROMPT]),
        guidance_scale=1.0,
    )
    seconds = interleaved(ways, rounds=rounds, clock=clock_for(model.device), warm=False)
    reference = seconds.pop("")
    return [compared(what, reference, ours, TARGETS.get(what)) for what, ours in seconds.items()], all(same)


def engine_overhead(model: DiffusersModel, layers: tuple[int, ...], *, num_steps: int, rounds: int) -> dict[str, float]:
    """Return what the engine takes beyond plain `FluxPipeline` sampling, as a share of it.

    Returns:
        Median shares of sampling with no hooks, while recording, and while injecting in `layers`.
    """
    height, width = model.default_size
    conditioning = model.encode_prompt([PROMPT])
    noise = standard_noise(torch.Generator().manual_seed(0), (1, *model.latent_shape(height, width)), model.device)
    grid, scale, store = model.time_grid(num_steps, height, width), model.default_guidance_scale, KVStore()

    def plain() -> torch.Tensor:
        return model.pipeline(
            prompt_embeds=conditioning.tensors["encoder_hidden_states"],
            pooled_prompt_embeds=conditioning.tensors["pooled_projections"],
            latents=pack(noise).to(model.dtype),
            height=height,
            width=width,
            num_inference_steps=num_steps,
            guidance_scale=scale,
            output_type="latent",
        ).images

    def ours(*interventions: RecordKV | InjectKV) -> None:
        velocity = CountedVelocity(model, conditioning, scale)
        with model.attach(*interventions):
            integrate(velocity, noise, grid, Euler())

    ours(RecordKV(layers, store))
    seconds = interleaved(
        {
            "plain": plain,
            "no hooks": ours,
            "recording": lambda: ours(RecordKV(layers, KVStore())),
            "injecting": lambda: ours(InjectKV(layers, store)),
        },
        rounds=rounds,
        clock=clock_for(model.device),
    )
    shares = {
        name: statistics.median(own / plain - 1 for own, plain in zip(runs, seconds["plain"]))
        for name, runs in seconds.items()
    }
    del shares["plain"]
    return shares | {"seconds a step": statistics.median(seconds["plain"]) / num_steps}


def store_bytes(editor: StableFlow, *, num_steps: int) -> dict[str, float]:
    """Return computed and held bytes of a source's keys and values."""
    source = editor.generate(PROMPT, seed=1, num_steps=num_steps)
    height, width = editor.model.default_size
    assert source.store is not None
    held = sum(features.untyped_storage().nbytes() for features in source.store.entries.values())
    computed = editor.model.kv_bytes(height, width) * len(editor.chosen_layers) * num_steps
    return {"computed": computed, "held": held, "ratio": held / computed}


def growth(editor: StableFlow, *, edits: int, num_steps: int) -> dict[str, float]:
    """Return the bytes by which Python's memory and the process grew from one edit to the last of many."""
    source = editor.generate(PROMPT, seed=1, num_steps=num_steps)

    def run(count: int) -> None:
        for number in range(count):
            editor.edit(source, EDITS[number % len(EDITS)])
        gc.collect()

    run(10)
    resident = _resident_bytes()
    run(edits)
    grown = _resident_bytes() - resident
    tracemalloc.start()
    run(5)
    traced = tracemalloc.get_traced_memory()[0]
    run(20)
    traced = tracemalloc.get_traced_memory()[0] - traced
    tracemalloc.stop()
    assert source.store is not None
    return {"edits": edits, "resident": grown, "python, 20 edits": traced, "one session": source.store.num_bytes}


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
