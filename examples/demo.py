"""The main job on the bundled model: edit a drawn picture and a real picture file.

Run: python examples/demo.py [FOLDER]
"""

import sys
import time
from pathlib import Path

import stableflow as sf

EARLY = (0.6, 1.0)  # inject while the layout is set; the late steps may draw new things freely
PICTURE = Path(__file__).parent / "picture.png"
DRAWN = "a red dog standing on the grass at noon"
DRAWN_EDITS = [
    "a red dog sitting on the grass at noon",
    "a red dog standing on the grass at noon next to a ball",
    "a red dog standing wearing a blue hat on the grass at noon",
    "a red dog standing in the snow at noon",
    "a red dog standing on the grass at noon with a sign saying hi",
    "a sketch of a red dog standing on the grass at noon",
]
SHOWN = "a white cat sitting on the grass at noon"
SHOWN_EDITS = [
    "a white cat standing on the grass at noon",
    "a white cat sitting on the grass at noon next to a balloon",
    "a white cat sitting wearing a red hat on the grass at noon",
    "a white cat sitting on the beach at noon",
    "a spotted white cat sitting on the grass at noon",
    "a watercolour of a white cat sitting on the grass at noon",
]


def main(folder: Path) -> None:
    started = time.perf_counter()
    editor = sf.StableFlow(sf.load("tiny"))

    source = editor.generate(DRAWN, seed=4)
    show(editor.edit(source, DRAWN_EDITS, t_window=EARLY), folder / "generated")

    source = editor.invert(PICTURE, prompt=SHOWN)
    show(editor.edit(source, SHOWN_EDITS, t_window=EARLY), folder / "real")
    print(f"layers {list(editor.layers)} of {len(editor.model.layers)}, {time.perf_counter() - started:.1f} s")


def show(result: sf.EditResult, folder: Path) -> None:
    files = result.save(folder)
    print(f"{folder / 'comparison.png'}: source and {len(result.prompts)} edits ({len(files)} files in all)")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out/demo"))
