"""A picture of a benchmark: one case a category, the source above its edits under every setting.

Run: python examples/benchmark_grid.py FOLDER-OF-A-BENCHMARK PICTURE [FIRST-CASE-OF-EACH-CATEGORY]
"""

import sys
from pathlib import Path

from PIL import Image

from stableflow.images import comparison_grid, save_png
from stableflow.jobs.cells import Cells

SIDE = 112


def draw(folder: Path, picture: Path, nth: int = 0) -> None:
    cells = Cells.open(folder)
    by_case = {(r["case"], r["setting"]): r for r in cells.values()}
    chosen: dict[str, list[str]] = {}
    for case in cells.job["cases"]:
        record = by_case[case, next(iter(cells.job["settings"]))]
        chosen.setdefault(record["category"], []).append(case)
    cases = [names[min(nth, len(names) - 1)] for names in chosen.values()]
    images, labels = [], []
    for setting in [None, *cells.job["settings"]]:
        for case in cases:
            record = by_case[case, setting or next(iter(cells.job["settings"]))]
            names = record["pictures"]
            images.append(Image.open(folder / "pictures" / (names["edits"][0] if setting else names["source"])))
            labels.append(setting or f"{record['prompt']} → {record['edits'][0]}")
    save_png(picture, comparison_grid(images, labels, columns=len(cases), min_side=SIDE))
    print(picture)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
