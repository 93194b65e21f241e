"""Every editor side by side: `python examples/editors_table.py docs/editors.md` writes the table again.

What stands in it is found out, not declared: each editor edits one picture on the bundled model, and once more with the
picture's own prompt at guidance 1.
"""

import sys
from pathlib import Path
from typing import Any

import stableflow as sf
from stableflow.editing import EDITORS, Editor
from stableflow.errors import InputError

SOURCE, EDIT = "a red dog standing on the grass at noon", "a blue cat standing in the snow at night"
STEPS = 12
BEGIN, END = "<!-- table: examples/editors_table.py -->", "<!-- end of table -->"
HEADER = [
    "editor",
    "paper",
    "takes it for",
    "inversion",
    "passes, first / next edit",
    "families",
    "own prompt returns it to",
]
SETTINGS: dict[str, dict[str, Any]] = {
    "flowedit": {"n_max": 10},
    "edit-friendly": {"skip": 2},
    "sam-flow": {"n_max": 10, "n_avg": 1},
    "move": {"moves": [sf.Move("box:8,8,24,24")]},  # nowhere else: that gives the source back
}
FAMILIES = {"sam-flow": "that show their attention"}  # Z-Image does not yet


def main() -> None:
    model, picture = sf.load("tiny"), Path(__file__).with_name("picture.png")
    rows = [row_of(name, model, picture) for name in EDITORS]
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in [HEADER, ["---"] * len(HEADER), *rows])
    if len(sys.argv) == 1:
        print(table)
        return
    page = Path(sys.argv[1])
    before, _, rest = page.read_text().partition(BEGIN)
    page.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}")


def row_of(name: str, model: Any, picture: Path) -> list[str]:
    made, steps = EDITORS[name], {"num_steps": STEPS}
    own_steps = "num_steps" in made.setting_names()
    editor = made(model, **(steps if own_steps else {}), **SETTINGS.get(name, {}))
    source = editor.invert(picture, SOURCE, **({} if own_steps else steps))
    way = "of the source" if editor.needs_path else ("its own" if finds_path(editor) else "none")
    try:
        passes = [editor.edit(source, EDIT).recipe["nfe"]["edit"] for _ in range(2)]
    except InputError:
        families = "with a negative prompt" if made.needs_negative else "all"
        return [name, link(made.paper), made.good_for, way, "not run", families, "not run"]
    counts = f"{source.nfe + passes[0]} / {passes[1]}"
    return [name, link(made.paper), made.good_for, way, counts, FAMILIES.get(name, "all"), returned(editor, source)]


def finds_path(editor: Editor) -> bool:
    """Whether an editor that takes any picture walks the source's path for itself."""
    return any(hasattr(editor, name) for name in ("_path", "_to_noise"))


def returned(editor: Editor, source: sf.Source) -> str:
    """How far from the source its own prompt ends, at guidance 1, in units of the latents' deviation."""
    scales = {name: 1.0 for name in editor.setting_names() if name.endswith("guidance_scale")}
    error = (editor.edit(source, SOURCE, **scales).latents - source.latents).abs().max() / source.latents.std()
    return "rounding" if error < 1e-4 else f"{error:.2g}"


def link(paper: str) -> str:
    number = paper.removeprefix("arXiv:")
    return f"[{number}](https://arxiv.org/abs/{number})" if paper else "none"


if __name__ == "__main__":
    main()
