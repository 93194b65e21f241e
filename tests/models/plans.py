"""Planned peak memory of the twelve known checkpoints: `python tests/models/plans.py` writes docs/models.md's table.

A cell is what `stableflow edit -m NAME --memory CARD --dry-run` says of an edit beside its source at 1024 x 1024,
without a weight: parameters counted, live numbers of a pass measured (test_memory_plan.py).
"""

import sys
from pathlib import Path

from stableflow.cli.plan import CARDS
from stableflow.models.known import KNOWN
from stableflow.models.memory_plan import choose_plan

DOCS = Path(__file__).parents[2] / "docs" / "models.md"
BEGIN, END = "<!-- plans: begin -->\n", "<!-- plans: end -->"
MOVED = {"none": "whole", "model": "part by part", "group": "block by block"}


def cell(name, card):
    plan = choose_plan(KNOWN[name], card)
    numbers = {"bf16": "", "int8": ", int8", "nf4": ", nf4"}[plan.transformer]
    return f"{plan.peak / 1e9:.1f} {MOVED[plan.offload]}{numbers}"


def table():
    lines = [f"| | steps, guidance | {' | '.join(CARDS)} |", f"|---|---|{'---|' * len(CARDS)}"]
    for name, known in KNOWN.items():
        usual = f"{known.steps}, {known.guidance:g}"
        lines.append(f"| {name} | {usual} | {' | '.join(cell(name, card) for card in CARDS)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    text = DOCS.read_text()
    before, rest = text.split(BEGIN)
    DOCS.write_text(f"{before}{BEGIN}{table()}{END}{rest.split(END)[1]}")
    sys.stdout.write(table())
