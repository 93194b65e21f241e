"""What edits cost at scale, on paper: operations, time on a card, bytes of sessions, and vitality over machines.

    python -m stableflow.serving.scale --rate 400

Counts come from shapes and step counts alone; how many operations a second a card really does is an assumption.
"""

import argparse
import dataclasses
import sys
from dataclasses import dataclass

from stableflow.benchmarks.perf.accelerator import VITAL, flop_a_row
from stableflow.benchmarks.perf.random_flux import SHAPES, Shape
from stableflow.checks import check_count, check_number
from stableflow.editing.presets import make_preset

HOUR = 3600.0
DRAWN = 15  # steps of a drawn source and of its edits
SIDE = 1024  # pixels
BYTES = 2  # of a number, bfloat16


@dataclass(frozen=True)
class Work:
    """Rows of the model that a picture and its edits take.

    Args:
        source: Once for a picture.
        edit: For each of its edits.
    """

    source: int
    edit: int


def work_of(preset: str | None) -> Work:
    """Return the rows of a real picture under a preset, or of a drawn one (None)."""
    if preset is None:
        return Work(DRAWN, DRAWN)
    made = make_preset(preset)
    return Work(made.num_steps * int(made.solver.get("iterations", 1)), made.num_steps)


def operations(work: Work, edits: float, flop_row: float) -> float:
    """Return the floating-point operations of one edit, where a picture is edited so many times.

    Args:
        edits: Of one picture, on average; its source is made once.
        flop_row: Operations of one row of one step.
    """
    check_number("edits", edits, 1)
    return (work.source / edits + work.edit) * flop_row


def session_bytes(shape: Shape, side: int, layers: int, steps: int) -> int:
    """Return the bytes of a session's keys and values: 2 x layers x steps x tokens x width numbers."""
    return 2 * layers * steps * (side // 16) ** 2 * shape.width * BYTES


def vitality_rows(layers: int, prompts: int = 64, steps: int = DRAWN) -> int:
    """Return the rows of a whole measurement: every prompt once whole and once without each layer."""
    return prompts * steps * (check_count("layers", layers) + 1)


def vitality_hours(layers: int, machines: int, flop_row: float, rate: float, *, cells: int = 16) -> float:
    """Return the hours of a measurement spread over machines that pull tasks of one layer and some prompts.

    The last to end has at most one task more than the average.

    Args:
        rate: Operations a second of one machine.
        cells: Tasks that a layer's prompts are cut into.
    """
    task = flop_row * vitality_rows(layers) / ((layers + 1) * cells) / rate
    tasks = (layers + 1) * cells
    return -(-tasks // check_count("machines", machines)) * task / HOUR


def table(rate: float) -> str:
    """Return the tables of docs/scale.md.

    Args:
        rate: Operations a second that a card does, in TFLOP.
    """
    shape = SHAPES["flux"]
    row, speed = flop_a_row(shape, SIDE), check_number("rate", rate, 0, above=True) * 1e12
    lines = ["| picture | rows: source, edit | PFLOP an edit: 1, 4, 20 a picture | seconds | card-hours for 1M edits |",
             "|---|---|---|---|---|"]  # fmt: skip
    for name in (None, "exact", "balanced", "fast"):
        work = work_of(name)
        each = [operations(work, edits, row) for edits in (1, 4, 20)]
        lines.append(
            f"| {name or 'drawn'} | {work.source}, {work.edit} | {', '.join(f'{flop / 1e15:.2f}' for flop in each)} | "
            f"{', '.join(f'{flop / speed:.1f}' for flop in each)} | "
            f"{', '.join(f'{1e6 * flop / speed / HOUR:,.0f}' for flop in each)} |"
        )
    lines += ["", "| session | 9 vital layers | all 57 layers |", "|---|---|---|"]
    for name in (None, "exact", "balanced", "fast"):
        steps = work_of(name).edit
        sizes = [session_bytes(shape, SIDE, layers, steps) / 1e9 for layers in (len(VITAL), 57)]
        lines.append(f"| {name or 'drawn'}, {steps} steps | {sizes[0]:.1f} GB | {sizes[1]:.1f} GB |")
    deep = dataclasses.replace(shape, single=60 - shape.double)
    lines += ["", "| machines | hours for 60 layers |", "|---|---|"]
    lines += [f"| {n} | {vitality_hours(60, n, flop_a_row(deep, SIDE), speed):.2f} |" for n in (1, 4, 16, 64)]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m stableflow.serving.scale", description=__doc__)
    parser.add_argument("--rate", type=float, default=400.0, help="TFLOP a second that a card really does")
    sys.stdout.write(table(parser.parse_args().rate))


if __name__ == "__main__":
    main()
