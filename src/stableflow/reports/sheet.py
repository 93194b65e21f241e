"""A sheet of pictures: a case a line, its source, every way's edit (the last of several), and the truth."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from stableflow.files import replacing
from stableflow.images import comparison_grid


def write_sheet(
    path: Path, records: Sequence[Mapping[str, Any]], ways: Sequence[str], *, lines: int = 6
) -> Path | None:
    """Write the first cases of every category in turn as PNG; returns None where there are no pictures.

    Args:
        path: In the benchmark's folder, which holds pictures/.
        records: Of the benchmark, cases first.
        ways: Which settings, in the order of the columns.
        lines: How many cases.
    """
    shown = [record for record in records if record.get("pictures")]
    by_case = {name: [record for record in shown if record["case"] == name] for name in _spread(shown, lines)}
    cells: list[tuple[Path, str]] = []
    for found in by_case.values():
        made = {record["setting"]: record for record in found}
        if not set(ways) <= set(made):
            continue
        first, pictures = found[0], path.parent / "pictures"
        cells.append((pictures / first["pictures"]["source"], first["prompt"]))
        cells += [(pictures / made[way]["pictures"]["edits"][-1], way) for way in ways]
        if "target" in first["pictures"]:
            cells.append((pictures / first["pictures"]["target"], "truth: " + first["edits"][-1]))
    if not cells:
        return None
    columns = len(ways) + 1 + ("target" in shown[0]["pictures"])
    images = [_read(file) for file, _ in cells]
    grid = comparison_grid(images, [label for _, label in cells], columns=columns, min_side=120)
    with replacing(path) as temporary:
        grid.save(temporary, format="PNG")
    return path


def _spread(records: Sequence[Mapping[str, Any]], count: int) -> list[str]:
    """Return the first cases, one of each category after another."""
    groups: dict[str, list[str]] = {}
    for record in records:
        group = groups.setdefault(record["category"], [])
        if record["case"] not in group:
            group.append(record["case"])
    longest = max(map(len, groups.values()), default=0)
    return [group[i] for i in range(longest) for group in groups.values() if i < len(group)][:count]


def _read(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")
