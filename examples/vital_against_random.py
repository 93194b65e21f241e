"""Are the vital layers special? What they keep at equal edit rates, beside random sets of as many layers.

Run: stableflow bench scenes --settings random --out out/bench/random
     python examples/vital_against_random.py [out/bench/random]
"""

import sys
from pathlib import Path

from stableflow.benchmarks.equal_rate import curves, kept_at
from stableflow.benchmarks.summary import summarise
from stableflow.jobs.cells import Cells
from stableflow.reports.figures import save_figure
from stableflow.reports.tradeoff import tradeoff_figure

RATES = (0.9, 0.8, 0.7)
KEPT = ("hidden_kept", "psnr", "dino_patch")


def compare(folder: Path) -> None:
    cells = Cells.open(folder)
    order = {name: i for i, name in enumerate(cells.job["settings"])}
    records = sorted(cells.values(), key=lambda record: order[record["setting"]])
    settings = {name: setting["curve"] for name, setting in cells.job["settings"].items()}
    print("| edit rate | kept | vital | random sets: lowest, median, highest | sets that reach it | vital beats |")
    print("|---|---|---|---|---|---|")
    for kept in KEPT:
        found = curves(records, settings, edited="edited", kept=kept)
        for rate in RATES:
            values = {name: kept_at(points, rate) for name, points in found.items()}
            vital = values.pop("vital")
            others = sorted(value for value in values.values() if value is not None)
            if vital is None or not others:
                print(f"| {rate} | {kept} | {vital} | - | {len(others)} | - |")
                continue
            middle = others[len(others) // 2]
            beaten = sum(vital > value for value in others)
            print(
                f"| {rate} | {kept} | {vital:.3f} | {others[0]:.3f}, {middle:.3f}, {others[-1]:.3f} | {len(others)} of "
                f"{len(values)} | {beaten} |"
            )
    summary = summarise(records)
    for kept in KEPT[:2]:
        figure = tradeoff_figure(summary, kept=kept, edited="edited", curves=settings)
        print(save_figure(figure, folder / f"vital-against-random-{kept}.png"))


if __name__ == "__main__":
    compare(Path(sys.argv[1] if len(sys.argv) > 1 else "out/bench/random"))
