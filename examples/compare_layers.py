"""Which layers to inject in: the ground-truth table of the README, and a figure of the first cases.

Run: python examples/compare_layers.py [CASES] [FOLDER]
"""

import json
import sys
import time
from pathlib import Path

import torch

import stableflow as sf
from stableflow.benchmarks.scene_edits import drawn_sources, real_sources, run_edits, scene_edits, summarise
from stableflow.images import comparison_grid, save_png, to_pil
from stableflow.metrics.attributes import AttributeClassifier
from stableflow.models.load import bundled_path
from stableflow.vital.presets import find_preset


def settings_to_compare(model: sf.FlowModel) -> dict[str, dict]:
    every, vital = list(range(len(model.layers))), list(find_preset(model).layers)
    other = [layer for layer in every if layer not in vital]
    return {
        "none (re-prompting, same noise)": {"layers": []},
        "vital": {"layers": vital},
        "vital, t from 1 to 0.6": {"layers": vital, "t_window": (0.6, 1.0)},
        "all double": {"layers": [layer.index for layer in model.layers if layer.kind == "double"]},
        "as many non-vital (the last)": {"layers": other[-len(vital) :]},
        "all non-vital": {"layers": other},
        "all": {"layers": every},
    }


def compare(count: int, folder: Path, *, real: bool) -> None:
    model = sf.load("tiny")
    editor = sf.StableFlow(model, layers=list(range(len(model.layers))))
    classifier = AttributeClassifier.load(bundled_path("classifier"))
    cases, started = scene_edits(count), time.perf_counter()
    sources = real_sources(editor, cases) if real else drawn_sources(editor, cases)
    rows, pictures = {}, {"source": torch.cat([source.images for source in sources])}
    for name, settings in settings_to_compare(model).items():
        outcomes, pictures[name] = run_edits(editor, classifier, cases, sources, real=real, **settings)
        rows[name] = summarise(outcomes)
    kind = "real" if real else "drawn"
    print(f"\n{kind} sources, {count} edits, {time.perf_counter() - started:.0f} s")
    print("| injected in | edited | other words kept | hidden kept | PSNR, dB |\n|---|---|---|---|---|")
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(f"{mean:.2f} ± {error:.2f}" for mean, error in row.values()) + " |")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{kind}.json").write_text(json.dumps(rows, indent=1) + "\n")
    shown = [i for i in range(min(count, 7))]
    cells = [to_pil(images[i]) for images in pictures.values() for i in shown]
    labels = [f"{name}: {cases[i].prompts[name != 'source']}" for name in pictures for i in shown]
    save_png(folder / f"{kind}.png", comparison_grid(cells, labels, columns=len(shown), min_side=128))


if __name__ == "__main__":
    cases = int(sys.argv[1]) if len(sys.argv) > 1 else 105
    target = Path(sys.argv[2] if len(sys.argv) > 2 else "out/compare")
    compare(cases, target, real=False)
    compare(cases // 2, target, real=True)
