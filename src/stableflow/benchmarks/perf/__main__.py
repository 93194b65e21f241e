"""`python -m stableflow.benchmarks.perf`: the table of docs/concepts/speed.md; `--device cuda --size flux`: one device.

Everything runs in this process, the ways to compare in turn. On a CPU it is one thread, and the seconds are the
process's own, since others share the machine.
"""

import argparse
import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from stableflow.benchmarks.perf.accelerator import describe_device, measure_on
from stableflow.benchmarks.perf.loss import preset_loss
from stableflow.benchmarks.perf.measure import engine_overhead, growth, of_drawn, of_real, store_bytes
from stableflow.benchmarks.perf.random_flux import SHAPES, random_flux
from stableflow.benchmarks.perf.regions import of_regions
from stableflow.benchmarks.perf.table import tables, write_between
from stableflow.benchmarks.scene_edits import scene_edits
from stableflow.editing.methods.stable_flow import StableFlow
from stableflow.editing.presets import PRESETS
from stableflow.files import write_text_atomic
from stableflow.models.load import load
from stableflow.models.model import DiffusersModel
from stableflow.scenes import render

MID_LAYERS = (0, 5)  # of nine: one in four or five, as in FLUX.1-dev
log = logging.getLogger(__name__)


def measure_here(*, rounds: int, cases: int) -> dict[str, Any]:
    """Measure the bundled model and a mid-size random FLUX on the CPU.

    Args:
        rounds: Of the bundled model's comparisons; the mid-size ones, whose steps are long, run less often.
        cases: Edits of inverted scenes behind each preset's loss.
    """
    tiny, mid = load("tiny", device="cpu"), random_flux(SHAPES["mid"])
    assert isinstance(tiny, DiffusersModel)
    editor, picture = StableFlow(tiny), render(scene_edits(1)[0].source)
    found: dict[str, Any] = {"device": describe_device(torch.device("cpu"))}
    found["presets"] = {name: preset.describe() for name, preset in PRESETS.items()}
    log.info("bundled model")
    found["tiny"] = _ratios(
        of_drawn(editor, num_steps=15, rounds=rounds), of_real(tiny, editor.chosen_layers, picture, rounds=rounds)
    )
    log.info("loss of the presets, %d cases", cases)
    found["loss"] = {"cases": cases, **preset_loss(tiny, cases=cases)}
    log.info("memory")
    found["memory"] = {
        "keys and values": store_bytes(editor, num_steps=15),
        "growth": growth(editor, edits=100, num_steps=4),
    }
    log.info("mid-size model")
    large = torch.rand(3, *mid.default_size, generator=torch.Generator().manual_seed(0))
    found["overhead"] = engine_overhead(mid, MID_LAYERS, num_steps=3, rounds=rounds)
    found["mid"] = _ratios(
        of_drawn(StableFlow(mid, layers=MID_LAYERS), num_steps=15, rounds=rounds),
        of_real(mid, MID_LAYERS, large, rounds=1),
    )
    return found | measure_regions(rounds=rounds)


def measure_regions(*, rounds: int) -> dict[str, Any]:
    """Measure edits of regions of several sizes in the mid-size model, and say where."""
    log.info("regions, mid-size model")
    return {"regions": {"device": describe_device(torch.device("cpu")), **of_regions(num_steps=8, rounds=rounds)}}


def _ratios(*measured: tuple[list[Any], bool]) -> dict[str, Any]:
    return {"rows": [asdict(row) for rows, _ in measured for row in rows], "exact": all(same for _, same in measured)}


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    parser = argparse.ArgumentParser(prog="python -m stableflow.benchmarks.perf", description=__doc__)
    parser.add_argument("--device", help="measure a random FLUX on this device instead: cuda or cpu")
    parser.add_argument("--size", choices=list(SHAPES), default="flux", help="with --device: its shape [flux]")
    parser.add_argument("--eager", action="store_true", help="with --device: do not compile")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", type=int, default=33, help="behind the presets' loss")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="folder of perf.json and concepts/speed.md")
    parser.add_argument("--regions", action="store_true", help="measure edits of regions alone, and keep the rest")
    parser.add_argument("--out", type=Path, help="with --device: write the figures here")
    arguments = parser.parse_args()
    if arguments.device is not None:
        found = measure_on(arguments.device, arguments.size, rounds=arguments.rounds, compiled=not arguments.eager)
        text = json.dumps(found, indent=1)
        log.info(text)
        if arguments.out is not None:
            write_text_atomic(arguments.out, text + "\n")
        return
    torch.set_num_threads(1)
    kept = arguments.docs / "perf.json"
    if arguments.regions:
        found = json.loads(kept.read_text(encoding="utf-8")) | measure_regions(rounds=arguments.rounds)
    else:
        found = measure_here(rounds=arguments.rounds, cases=arguments.cases)
    write_text_atomic(kept, json.dumps(found, indent=1) + "\n")
    write_between(arguments.docs / "concepts" / "speed.md", tables(found))
    log.info("\n%s", tables(found))


if __name__ == "__main__":
    main()
