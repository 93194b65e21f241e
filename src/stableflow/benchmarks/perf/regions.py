"""An edit of a region alone beside the same edit with every token computed: seconds, largest difference, memory."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stableflow.benchmarks.perf.measure import EDITS, PROMPT, Comparison, clock_for, compared, interleaved
from stableflow.benchmarks.perf.random_flux import SHAPES, random_flux
from stableflow.editing.methods.stable_flow import StableFlow
from stableflow.editing.result import EditResult
from stableflow.editing.source import Source
from stableflow.region import Region

SHARES = {"1/10": (17, 6, 4.0), "1/4": (16, 16, 2.2), "1/2": (32, 16, 1.4)}
"""Of 32 x 32 image tokens: columns and rows of the region, and how many times as fast it should be."""
GRID, TOKEN = 32, 16  # tokens, pixels
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def of_regions(*, num_steps: int, rounds: int) -> dict[str, Any]:
    """Return ratios, largest differences and memory for regions of several sizes in the mid-size model.

    At twice its side: 1024 image tokens, 64 of text. Text is always computed, so (image + text) / (region + text) is
    the most that can be gained.
    """
    model, side = random_flux(SHAPES["mid"]), GRID * TOKEN
    editor = StableFlow(model, layers="all", kv_memory="device")
    source = editor.generate(PROMPT, seed=1, num_steps=num_steps, height=side, width=side)
    assert source.store is not None
    regions = {name: Region.box(0, 0, x * TOKEN, y * TOKEN, size=(side, side)) for name, (x, y, _) in SHARES.items()}
    ways: dict[str, Callable[[], Any]] = {"all": lambda: _edit(editor, source, regions["1/10"], "all")}
    for name, region in regions.items():
        ways[name] = lambda region=region: _edit(editor, source, region, "region")
    peaks = {name: peak_bytes(way) for name, way in ways.items()}  # which warms up, too
    seconds = interleaved(ways, rounds=rounds, clock=clock_for(model.device), warm=False)
    reference = seconds.pop("all")
    return {
        "side": side,
        "steps": num_steps,
        "keys and values": source.store.num_bytes,
        "rows": [asdict(_compared(name, reference, runs)) for name, runs in seconds.items()],
        "differences": {name: _difference(editor, source, region) for name, region in regions.items()},
        "peak bytes": peaks,
    }


def _edit(editor: StableFlow, source: Source, region: Region, compute: str) -> EditResult:
    return editor.edit(source, EDITS[0], region=region, compute=compute)


def _compared(name: str, reference: list[float], runs: list[float]) -> Comparison:
    return compared(f"further edit of {name} of the tokens", reference, runs, SHARES[name][2])


def _difference(editor: StableFlow, source: Source, region: Region) -> float:
    """The largest difference of final latents, as a share of the largest latent."""
    whole, part = (_edit(editor, source, region, compute).latents for compute in ("all", "region"))
    return float((whole - part).abs().max() / whole.abs().max())


def peak_bytes(work: Callable[[], Any]) -> int | None:
    """Return by how much the process's memory rose at most while `work` ran; None where the system does not tell."""
    try:
        CLEAR.write_text("5", encoding="ascii")  # the peak begins anew
        before = _status("VmRSS")
        work()
        return _status("VmHWM") - before
    except OSError:
        return None


def _status(name: str) -> int:
    line = next(line for line in STATUS.read_text(encoding="ascii").splitlines() if line.startswith(name + ":"))
    return int(line.split()[1]) * 1024
