"""What a preset costs in fidelity: edits of inverted scenes, judged by ground truth."""

from stableflow.benchmarks.scene_edits import real_sources, run_edits, scene_edits, summarise
from stableflow.editing.presets import PRESETS
from stableflow.editing.stable_flow import StableFlow
from stableflow.metrics.attributes import AttributeClassifier
from stableflow.models.base import FlowModel
from stableflow.models.load import bundled_path


def preset_loss(model: FlowModel, *, cases: int) -> dict[str, dict[str, tuple[float, float]]]:
    """Return mean and standard error of every figure of the scenes benchmark, by preset."""
    edits, classifier = scene_edits(cases), AttributeClassifier.load(bundled_path("classifier"))
    figures = {}
    for name in PRESETS:
        editor = StableFlow(model, preset=name)
        outcomes, _ = run_edits(editor, classifier, edits, real_sources(editor, edits), real=True)
        figures[name] = summarise(outcomes)
    return figures
