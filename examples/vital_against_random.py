"""Are the vital layers special? What they keep at equal edit rates, beside 20 random sets of as many layers.

Every set is injected in four windows of flow time, which gives each a curve from no edit lost to much kept. All sets
of a window run as rows of one batch: an intervention a layer, whose mask says for which rows it acts.

Run: python examples/vital_against_random.py [CASES] [FOLDER]
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

import stableflow as sf
from stableflow.benchmarks.datasets.scenes import load_scenes
from stableflow.benchmarks.equal_rate import curves, kept_at
from stableflow.benchmarks.judges import MetricJudge, SceneJudge
from stableflow.benchmarks.settings import random_layer_sets
from stableflow.benchmarks.summary import summarise
from stableflow.flow.integrate import integrate
from stableflow.flow.solvers import Euler
from stableflow.interventions.blend import Blend
from stableflow.metrics import Dino, DinoPatch
from stableflow.metrics.attributes import AttributeClassifier
from stableflow.models.base import Conditioning
from stableflow.models.load import bundled_path
from stableflow.reports.figures import save_figure
from stableflow.reports.tradeoff import tradeoff_figure

DRAWS = 20
WINDOWS = (0.8, 0.6, 0.4, 0.0)  # injected from t = 1 down to these
RATES = (0.9, 0.8, 0.7)
KEPT = ("hidden_kept", "psnr", "dino_patch")


def edit_all(
    model: sf.FlowModel, source: sf.Source, prompt: str, sets: Sequence[Sequence[int]], low: float
) -> torch.Tensor:
    """Return one edit for each set of layers, all rows of one batch, injected from t = 1 to `low`."""
    height, width = (side // model.pixel_multiple for side in model.default_size)

    def injected(layer: int) -> sf.InjectKV:
        rows = torch.tensor([float(layer in chosen) for chosen in sets])
        mask = rows[:, None, None].expand(-1, height, width)
        return sf.InjectKV([layer], source.store, Blend(token_mask=mask, t_window=(low, 1.0)))

    conditioning = Conditioning.concat([model.encode_prompt([prompt])] * len(sets))
    noise = source.noise.expand(len(sets), -1, -1, -1)
    with model.attach(*[injected(layer.index) for layer in model.layers]):
        latents = integrate(
            lambda z, t: model.velocity(z, t, conditioning, guidance_scale=model.default_guidance_scale),
            noise,
            source.grid,
            Euler(),
        )
    return model.decode_latents(latents)


def run(count: int) -> tuple[list[dict], dict[str, str]]:
    """Return records as a benchmark keeps them, and the curve of each setting."""
    model = sf.load("tiny")
    sets = {"none": [], **random_layer_sets(model, DRAWS)}
    editor = sf.StableFlow(model, layers=range(len(model.layers)))
    cases, edits = load_scenes(count, real=False)
    judges = [
        SceneJudge(edits, AttributeClassifier.load(bundled_path("classifier"))),
        MetricJudge(DinoPatch(Dino.load(bundled_path("dinov2")))),
    ]
    records = []
    for case in cases:
        source = editor.generate(case.prompt, seed=case.seed)
        for low in WINDOWS:
            images = edit_all(model, source, case.edits[0], list(sets.values()), low)
            for name, image in zip(sets, images):
                if name == "none" and low != WINDOWS[0]:
                    continue
                figures = {k: v for judge in judges for k, v in judge(case, source.images, image[None]).items()}
                setting = name if name == "none" else f"{name}; t 1-{low:g}"
                records.append({"case": case.id, "setting": setting, "category": case.category, "figures": figures})
    settings = {"none": ""} | {f"{name}; t 1-{low:g}": name for name in sets if name != "none" for low in WINDOWS}
    return records, settings


def report(records: list[dict], settings: dict[str, str], folder: Path) -> None:
    print("| kept | at an edit rate of at least | vital | random sets: lowest, median, highest | below vital |")
    print("|---|---|---|---|---|")
    for kept in KEPT:
        found = curves(records, settings, edited="edited", kept=kept)
        for rate in RATES:
            values = {name: kept_at(points, rate) or 0.0 for name, points in found.items()}
            vital, others = values.pop("vital"), sorted(values.values())
            spread = f"{others[0]:.3f}, {others[len(others) // 2]:.3f}, {others[-1]:.3f}"
            below = sum(value < vital for value in others)
            print(f"| {kept} | {rate} | {vital:.3f} | {spread} | {below} of {len(others)} |")
    summary = summarise(records)
    print("\n| set, t 1-0 | edited | hidden_kept | psnr |\n|---|---|---|---|")
    for name, row in summary.items():
        if name == "none" or name.endswith("; t 1-0"):
            print(f"| {name} | " + " | ".join(str(row[figure]) for figure in ("edited", "hidden_kept", "psnr")) + " |")
    for kept in KEPT:
        figure = tradeoff_figure(summary, kept=kept, edited="edited", curves=settings)
        print(save_figure(figure, folder / f"{kept}.png"))


if __name__ == "__main__":
    target = Path(sys.argv[2] if len(sys.argv) > 2 else "out/vital-against-random")
    target.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    made, named = run(int(sys.argv[1]) if len(sys.argv) > 1 else 64)
    (target / "records.json").write_text(json.dumps(made))
    report(made, named, target)
    print(f"{time.perf_counter() - started:.0f} s")
