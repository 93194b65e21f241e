"""A picture of a benchmark: the source above its edits under every setting, one case a category, or the worst cases.

Run: python examples/benchmark_grid.py FOLDER-OF-A-BENCHMARK PICTURE [SETTING-WHOSE-WORST-CASES-ARE-SHOWN]
"""

import sys
from pathlib import Path

from PIL import Image

from stableflow.images import comparison_grid, save_png
from stableflow.jobs.cells import Cells

SIDE, COLUMNS = 112, 8


def first_of_each_category(cells: Cells) -> list[str]:
    """The first case of every category."""
    setting = next(iter(cells.job["settings"]))
    category = {r["case"]: r["category"] for r in cells.values() if r["setting"] == setting}
    first: dict[str, str] = {}
    for case in cells.job["cases"]:
        first.setdefault(category[case], case)
    return list(first.values())


def worst(cells: Cells, setting: str) -> list[str]:
    """The cases whose edit was not made or lost most; among equals, those that keep least."""
    figures = {r["case"]: r["figures"] for r in cells.values() if r["setting"] == setting}

    def rank(case: str) -> tuple[float, float]:
        edited, kept = figures[case]["edited"][0], figures[case]["hidden_kept"][0]
        return edited * kept, kept

    return sorted(figures, key=rank)[:COLUMNS]


def draw(folder: Path, picture: Path, worst_of: str | None = None) -> None:
    cells = Cells.open(folder)
    records = {(r["case"], r["setting"]): r for r in cells.values()}
    settings = list(cells.job["settings"])
    cases = worst(cells, worst_of) if worst_of else first_of_each_category(cells)
    images, labels = [], []
    for case in cases:
        record = records[case, settings[0]]
        images.append(Image.open(folder / "pictures" / record["pictures"]["source"]))
        labels.append(f"{record['prompt']} -> {record['edits'][0]}")
    for setting in settings:
        for case in cases:
            images.append(Image.open(folder / "pictures" / records[case, setting]["pictures"]["edits"][0]))
            labels.append(setting)
    save_png(picture, comparison_grid(images, labels, columns=len(cases), min_side=SIDE))
    print(picture)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None)
