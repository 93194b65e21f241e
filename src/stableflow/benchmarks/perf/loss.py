"""What a preset costs in fidelity: edits of inverted scenes, judged by ground truth."""

from stableflow.benchmarks.datasets.scenes import load_scenes
from stableflow.benchmarks.judges import SceneJudge
from stableflow.benchmarks.summary import summarise
from stableflow.editing.methods.stable_flow import StableFlow
from stableflow.editing.presets import PRESETS
from stableflow.metrics.attributes import AttributeClassifier
from stableflow.models.base import FlowModel
from stableflow.models.load import bundled_path
from stableflow.scenes import render

INTERVAL = 2 * 1.96  # standard errors that a 95% interval spans


def preset_loss(model: FlowModel, *, cases: int) -> dict[str, dict[str, tuple[float, float]]]:
    """Return mean and standard error of every figure of the scenes benchmark, by preset."""
    scenes, edits = load_scenes(cases, real=True)
    judge, records = SceneJudge(edits, AttributeClassifier.load(bundled_path("classifier"))), []
    for name in PRESETS:
        editor = StableFlow(model, preset=name)
        for case in scenes:
            picture = render(edits[case.id].source)
            source = editor.invert(picture, case.prompt)
            figures = judge(case, picture[None], editor.edit(source, list(case.edits)).images)
            records.append({"case": case.id, "setting": name, "category": case.category, "figures": figures})
    return {
        name: {figure: (value.mean, (value.high - value.low) / INTERVAL) for figure, value in row.items()}
        for name, row in summarise(records).items()
    }
