"""What points attend to during an edit, in vital and other layers: the figure and sums of docs/concepts/attention.md.

Run: python examples/attention_figure.py [CASES] [FOLDER]
"""

import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

import stableflow as sf
from stableflow.benchmarks.scene_edits import scene_edits
from stableflow.reports.attention import attention_figure
from stableflow.reports.figures import save_figure

PROMPT, EDIT, SEED = (
    "a red dog standing on the grass at noon",
    "a red dog standing on the grass at noon next to a ball",
    2,
)
POINTS = {"should stay": (40, 44), "should change": (14, 42)}
EARLY = (0.6, 1.0)  # inject then, as in the demo, and look while it is on
SIDE, TOKEN = 64, 8  # pixels on a side of the picture, and of one of its tokens
EVERY_TOKEN = [(x, y) for y in range(TOKEN // 2, SIDE, TOKEN) for x in range(TOKEN // 2, SIDE, TOKEN)]
MOVED = 0.1  # mean change of a token's pixels from which on a case counts as edited


def groups_of(editor: sf.StableFlow) -> dict[str, list[int]]:
    others = [layer for layer in range(len(editor.model.layers)) if layer not in editor.layers]
    return {"vital: " + ", ".join(map(str, editor.layers)): list(editor.layers), "non-vital: the others": others}


def draw(editor: sf.StableFlow, folder: Path) -> None:
    source = editor.generate(PROMPT, seed=SEED)
    maps = sf.attention(editor, source, EDIT, points=list(POINTS.values()), t_window=EARLY, inject_window=EARLY)
    print(save_figure(attention_figure(maps, groups_of(editor), labels=list(POINTS)), folder / "attention.png"))
    maps.save(folder)


def measure(editor: sf.StableFlow, count: int) -> None:
    """Over edits of one word: the token that changes most against the token that changes least."""
    cases, groups = scene_edits(count), groups_of(editor)
    groups |= {f"layer {layer.index}, {layer.kind}": [layer.index] for layer in editor.model.layers}
    sums: dict[tuple[str, str], list[list[float]]] = {(title, name): [] for title in groups for name in POINTS}
    for case in cases:
        source = editor.generate(case.prompts[0], seed=case.seed)
        maps = sf.attention(editor, source, case.prompts[1], points=EVERY_TOKEN, t_window=EARLY, inject_window=EARLY)
        change = F.avg_pool2d((maps.images - maps.source_image).abs().mean(1, keepdim=True), TOKEN).flatten()
        new = torch.tensor([word not in maps.source.words for word in maps.edits[0].words])
        if change.max() < MOVED or not new.any():  # nothing moved, or a removal, which has no new word
            continue
        chosen = dict(zip(POINTS, (int(change.argmin()), int(change.argmax()))))
        for title, layers in groups.items():
            mean = maps.edits[0].mean(layers)
            for name, point in chosen.items():
                words = mean.text[point]
                sums[title, name].append([
                    float(value) for value in (mean.image_sum[point], words[new].mean(), words[~new].mean())
                ])  # fmt: skip
    edited = len(next(iter(sums.values())))
    print(
        f"{edited} of {count} edits brought a new word and changed a token by {MOVED} or more; mean and standard error"
    )
    print("| layers | point | image | a new word | another word |\n|---|---|---|---|---|")
    for (title, name), rows in sums.items():
        table = torch.tensor(rows)
        means, errors = table.mean(0), table.std(0) / edited**0.5
        print(f"| {title} | {name} | " + " | ".join(f"{m:.3f} ± {e:.3f}" for m, e in zip(means, errors)) + " |")


if __name__ == "__main__":
    cases = int(sys.argv[1]) if len(sys.argv) > 1 else 70
    target = Path(sys.argv[2] if len(sys.argv) > 2 else "out/attention")
    started = time.perf_counter()
    bundled = sf.StableFlow(sf.load("tiny"))
    draw(bundled, target)
    measure(bundled, cases)
    print(f"{time.perf_counter() - started:.0f} s")
