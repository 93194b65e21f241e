"""One picture of all tasks: `python examples/task_sheet.py OUT.png FOLDER...`, folders of `stableflow bench tasks`."""

import sys
from pathlib import Path

from PIL import Image

from stableflow.images import comparison_grid
from stableflow.jobs.cells import Cells

WAYS = ("task", "vital", "re-prompting", "FlowEdit")
LABELS = (*WAYS, "truth")


def line(folder: Path, case: str) -> tuple[list[Image.Image], list[str]]:
    """Return the pictures of one case and what stands above them."""
    cells, name = Cells.open(folder), folder.name.split("-")[0]
    made = {way: cells[f"{case}.{way}"]["pictures"] for way in WAYS}
    files = [made["task"]["source"], *(made[way]["edits"][0] for way in WAYS), made["task"]["target"]]
    images = [Image.open(folder / "pictures" / file).convert("RGB") for file in files]
    return images, [f"{name}: source", *LABELS]


if __name__ == "__main__":
    out, chosen = Path(sys.argv[1]), [argument.split(":") for argument in sys.argv[2:]]
    lines = [line(Path(folder), case) for folder, case in chosen]
    images, labels = [image for found, _ in lines for image in found], [text for _, found in lines for text in found]
    comparison_grid(images, labels, columns=len(LABELS) + 1, min_side=128).quantize(128).save(out, optimize=True)
