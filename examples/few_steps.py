"""What holds up in 4, 6 and 8 steps: is a picture found again by its inversion, and is it still edited?

Two tables on held-out renders and the bundled model, which was not distilled: its own few steps stand in for those of a
model made for them. First the way to the noise and back by each solver, with nothing that holds it to its path. Then
edits with the vital layers injected, the picture inverted as `stableflow edit` does for few-step models.

Run: python examples/few_steps.py [CASES] [FILE]
"""

import json
import sys
import time
from pathlib import Path

import torch

import stableflow as sf
from stableflow.benchmarks.datasets.scenes import load_scenes
from stableflow.benchmarks.judges import SceneJudge
from stableflow.benchmarks.summary import summarise
from stableflow.cli.usual import CAREFUL
from stableflow.editing.path import sampler_of
from stableflow.flow.integrate import integrate
from stableflow.flow.inversion import AlignedReplay, invert
from stableflow.flow.solvers import make_solver
from stableflow.metrics.attributes import AttributeClassifier
from stableflow.models.load import bundled_path

STEPS = (4, 6, 8)
SOLVERS = {
    "euler": "euler", "fixed point x1": {"name": "fixed_point", "iterations": 1}, "fixed point x3": CAREFUL,
    "midpoint": "midpoint", "fireflow": "fireflow", "aligned replay, x1": {"name": "fixed_point", "iterations": 1},
    "aligned replay, x3": CAREFUL,
}  # fmt: skip


@torch.no_grad()
def round_trips(model: sf.FlowModel, cases) -> list[dict]:
    """Root mean square error of latents that went to the noise and back, over their deviation; all cases in a batch."""
    side = model.default_size
    clean = model.encode_image(torch.stack([case.image for case in cases]))
    prompts = model.encode_prompt([case.prompt for case in cases])
    rows = []
    for steps in STEPS:
        grid = model.time_grid(steps, *side)
        for name, wanted in SOLVERS.items():
            calls = []

            def velocity(z, t, calls=calls):
                calls.append(t)
                return model.velocity(z, t, prompts, guidance_scale=1.0)

            solver = make_solver(wanted)
            found = invert(velocity, clean, grid, solver)
            there = len(calls)
            back = AlignedReplay(found.offsets) if "aligned" in name else sampler_of(solver)
            made = integrate(velocity, found.trajectory.at(grid.times[0]), grid, back)
            error = (made - clean).pow(2).mean(dim=(1, 2, 3)).sqrt() / clean.std()
            held = torch.cat([offset.flatten(1) for offset in found.offsets.values()], 1).pow(2).mean(1).sqrt()
            row = {"steps": steps, "solver": name, "passes": [there, len(calls) - there]}
            rows.append(row | {"error": float(error.mean()), "offset": float((held / clean.std()).mean())})
    return rows


def edits(model: sf.FlowModel, cases, truth) -> list[dict]:
    """Records of edits with the vital layers and with none."""
    judge, records = SceneJudge(truth, AttributeClassifier.load(bundled_path("classifier"))), []
    for steps in (*STEPS, 50):
        for name, layers in (("vital", None), ("none", [])):
            editor = sf.StableFlow(model) if layers is None else sf.StableFlow(model, layers=layers)
            solver = make_solver(CAREFUL if steps < 50 else {"name": "fixed_point", "iterations": 1})
            for case in cases if steps < 50 or name == "vital" else ():
                source = editor.invert(case.image, case.prompt, num_steps=steps, solver=solver)
                result = editor.edit(source, list(case.edits))
                figures = judge(case, source.images, result.images)
                setting = f"{steps} steps, {name}"
                records.append({"case": case.id, "setting": setting, "category": case.category, "figures": figures})
    return records


def main(count: int, file: Path) -> None:
    model = sf.load("tiny")
    cases, truth = load_scenes(count, real=True)
    started = time.perf_counter()
    trips = round_trips(model, cases)
    print("| solver | " + " | ".join(f"{steps} steps" for steps in STEPS) + " |\n|---|" + "---|" * len(STEPS))
    for name in SOLVERS:
        own = [row for row in trips if row["solver"] == name]
        print(
            f"| {name} | " + " | ".join(f"{row['error']:.2g} ({sum(row['passes'])})" for row in own) + " |", flush=True
        )
    records = edits(model, cases, truth)
    print("\n| | edited | hidden kept | PSNR to the source, dB |\n|---|---|---|---|")
    for name, row in summarise(records).items():
        print(f"| {name} | " + " | ".join(str(row[figure]) for figure in ("edited", "hidden_kept", "psnr")) + " |")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"round_trips": trips, "edits": records}))
    print(f"\n{count} renders, {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main(
        int(sys.argv[1]) if len(sys.argv) > 1 else 33, Path(sys.argv[2] if len(sys.argv) > 2 else "out/few_steps.json")
    )
