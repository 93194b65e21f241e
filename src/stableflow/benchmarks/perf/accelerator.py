"""Rows, sessions and memory of a random FLUX on one device, beside the floors that the hardware sets."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from stableflow.benchmarks.perf.measure import EDITS, PROMPT, clock_for, interleaved, of_drawn, of_real
from stableflow.benchmarks.perf.random_flux import SHAPES, Shape, random_flux
from stableflow.benchmarks.perf.reference import draw_and_edit
from stableflow.editing.methods.stable_flow import StableFlow
from stableflow.models.base import Conditioning
from stableflow.models.load import compile_blocks
from stableflow.models.model import DiffusersModel

VITAL = (0, 1, 17, 18, 25, 28, 53, 54, 56)  # of FLUX.1-dev; smaller shapes inject in their first and last layer
TOKEN_SIDE = 16  # pixels


def flop_a_row(shape: Shape, side: int) -> float:
    """Return the floating-point operations of one row of one step: 74.4e12 for FLUX.1-dev at 1024 pixels.

    A layer multiplies every token with 12 width^2 weights (keys, values, queries and output 4, the MLP 8), and its
    attention takes 2 tokens^2 width multiplications; an operation is a multiplication or an addition.
    """
    tokens = (side // TOKEN_SIDE) ** 2 + shape.text_tokens
    layers = shape.double + shape.single
    return 2 * layers * (12 * tokens * shape.width**2 + 2 * tokens**2 * shape.width)


def measure_on(device: str, size: str, *, rounds: int = 5, compiled: bool = True) -> dict[str, Any]:
    """Return row times eager and compiled at full and half side, sessions, peak memory and floors.

    Args:
        device: "cuda" or "cpu".
        size: A name in `SHAPES`.
        rounds: Of each measurement.
        compiled: Measure again with the blocks compiled.
    """
    shape, dtype = SHAPES[size], torch.float32 if device == "cpu" else torch.bfloat16
    model = random_flux(shape, device=device, dtype=dtype)
    layers = VITAL if size == "flux" else (0, shape.double + shape.single - 1)
    rate, bandwidth = matmul_rate(model.device, dtype), copy_bandwidth(model.device)
    found: dict[str, Any] = {"size": size, "device": describe_device(model.device), "flop a second": rate}
    found["bytes a second"] = bandwidth
    for side in (shape.side, shape.side // 2):
        step_bytes = model.kv_bytes(side, side) * len(layers)
        found[f"{side} px"] = {
            "eager": row_times(model, side, rounds),
            "floor, row": flop_a_row(shape, side) / rate,
            "floor, keys and values": step_bytes / bandwidth,
        }
    drawn, exact = of_drawn(StableFlow(model, layers=layers, kv_memory="device"), num_steps=15, rounds=rounds)
    picture = torch.rand(3, shape.side, shape.side, generator=torch.Generator().manual_seed(0))
    real, still_exact = of_real(model, layers, picture, rounds=max(1, rounds // 2))
    found |= {"sessions": [asdict(row) for row in drawn + real], "exact": exact and still_exact}
    if device != "cpu":
        found["peak bytes"] = peaks(model, layers)
    if compiled:
        compile_blocks(model.pipeline.transformer, model.layers)
        for side in (shape.side, shape.side // 2):
            found[f"{side} px"]["compiled"] = row_times(model, side, rounds)
        drawn, _ = of_drawn(StableFlow(model, layers=layers, kv_memory="device"), num_steps=15, rounds=rounds)
        found["sessions, compiled"] = [asdict(row) for row in drawn]
    return found


def peaks(model: DiffusersModel, layers: Sequence[int]) -> dict[str, int]:
    """Return the most bytes that a CUDA device held, weights included, in the published way and in a session."""
    editor = StableFlow(model, layers=layers, kv_memory="device")

    def session() -> None:
        editor.edit(editor.generate(PROMPT, seed=1), EDITS[0])

    ways = {"published": lambda: draw_and_edit(model, layers, PROMPT, EDITS[:1], seed=1), "session": session}
    found = {}
    for name, way in ways.items():
        torch.cuda.reset_peak_memory_stats(model.device)
        way()
        found[name] = torch.cuda.max_memory_allocated(model.device)
    return found


def row_times(model: DiffusersModel, side: int, rounds: int) -> dict[str, float]:
    """Return the median seconds of a step of one row and of two."""
    noise = torch.randn(2, *model.latent_shape(side, side), generator=torch.Generator().manual_seed(0))
    noise, one = noise.to(model.device), model.encode_prompt([PROMPT])
    two = Conditioning.concat([one, one])

    def step(rows: int) -> Callable[[], Any]:
        conditioning = one if rows == 1 else two
        return lambda: model.velocity(noise[:rows], 0.5, conditioning, guidance_scale=3.5)

    seconds = interleaved({f"{rows} rows": step(rows) for rows in (1, 2)}, rounds=rounds, clock=clock_for(model.device))
    return {name: statistics.median(runs) for name, runs in seconds.items()}


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Return the operations a second that a large matrix product reaches."""
    width = 8192 if device.type == "cuda" else 1024
    left, right = (torch.randn(width, width, device=device, dtype=dtype) for _ in range(2))
    return 2 * width**3 / _seconds(lambda: left @ right, device)


def copy_bandwidth(device: torch.device) -> float:
    """Return the bytes a second that a copy within the device's memory reads, while it writes as many."""
    source = torch.empty(2**28 if device.type == "cuda" else 2**24, device=device)
    target = torch.empty_like(source)
    return source.nbytes / _seconds(lambda: target.copy_(source), device)


def _seconds(work: Callable[[], Any], device: torch.device) -> float:
    return statistics.median(interleaved({"": work}, rounds=10, clock=clock_for(device))[""])


def describe_device(device: torch.device) -> str:
    """Return the name of what computes."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    return f"{cpu_name()}, {torch.get_num_threads()} thread(s), torch {torch.__version__}"


def cpu_name() -> str:
    """Return the processor's name where the system tells it."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "cpu")
