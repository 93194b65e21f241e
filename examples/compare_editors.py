"""Stable Flow beside the other methods on the same sources: a ground-truth table and a figure of the first cases.

Run: python examples/compare_editors.py [CASES] [FOLDER]
"""

import sys
import time
from pathlib import Path

import torch

import stableflow as sf
from stableflow.benchmarks.scene_edits import drawn_sources, run_edits, scene_edits, summarise
from stableflow.editing import EDITORS
from stableflow.images import comparison_grid, save_png, to_pil
from stableflow.metrics.attributes import AttributeClassifier
from stableflow.models.load import bundled_path

METHODS = {  # shown name: registered name, its settings, settings of the edit
    "stable-flow": ("stable-flow", {}, {}),
    "stable-flow, t from 1 to 0.6": ("stable-flow", {}, {"t_window": (0.6, 1.0)}),
    "reprompt": ("reprompt", {}, {}),
    "sdedit, strength 0.7": ("sdedit", {}, {}),
    "sdedit, strength 0.8": ("sdedit", {"strength": 0.8}, {}),
    "flowedit": ("flowedit", {}, {}),
    "flowedit, target guidance 3.5": ("flowedit", {"target_guidance_scale": 3.5}, {}),
    "rf-inversion": ("rf-inversion", {}, {}),
    "rf-inversion, gamma 0, own prompt, t from 1 to 0.85": (
        "rf-inversion",
        {"gamma": 0.0, "inversion_prompt": None, "t_window": (0.85, 1.0)},
        {},
    ),
    "rf-solver-edit": ("rf-solver-edit", {}, {}),
    "rf-solver-edit, 2 steps": ("rf-solver-edit", {"inject_steps": 2}, {}),
}


def compare(count: int, folder: Path) -> None:
    model = sf.load("tiny")
    classifier = AttributeClassifier.load(bundled_path("classifier"))
    cases, started = scene_edits(count), time.perf_counter()
    sources = drawn_sources(sf.StableFlow(model), cases)
    pictures = {"source": torch.cat([source.images for source in sources])}
    print("| method | edited | other words kept | hidden kept | PSNR, dB |\n|---|---|---|---|---|")
    for shown, (name, settings, edit_settings) in METHODS.items():
        editor = EDITORS[name](model, **settings)
        outcomes, pictures[shown] = run_edits(editor, classifier, cases, sources, real=False, **edit_settings)
        row = summarise(outcomes).values()
        print(f"| {shown} | " + " | ".join(f"{mean:.2f} ± {error:.2f}" for mean, error in row) + " |", flush=True)
    print(f"\n{count} edits of drawn sources, {time.perf_counter() - started:.0f} s")
    columns = min(count, 7)
    cells = [to_pil(images[i]) for images in pictures.values() for i in range(columns)]
    labels = [f"{name}: {cases[i].prompts[name != 'source']}" for name in pictures for i in range(columns)]
    save_png(folder / "editors.png", comparison_grid(cells, labels, columns=columns, min_side=128))


if __name__ == "__main__":
    compare(int(sys.argv[1]) if len(sys.argv) > 1 else 35, Path(sys.argv[2] if len(sys.argv) > 2 else "out/compare"))
