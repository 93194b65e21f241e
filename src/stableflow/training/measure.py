"""Last stage: what the exported model can do, written down beside it."""

import json
import logging
import random
from pathlib import Path

from stableflow.images import comparison_grid, save_png, to_pil
from stableflow.metrics.attributes import AttributeClassifier
from stableflow.models.base import FlowModel
from stableflow.models.load import load
from stableflow.scenes import caption, random_keep
from stableflow.training.evaluate import caption_accuracy, draw_captions, held_out_scenes
from stableflow.vital.measure import Similarity, Vitality, feature_similarity, measure_vitality, pixel_similarity

log = logging.getLogger(__name__)
PROMPTS = 64  # as in the paper


def measure(folder: Path, *, captions: int) -> None:
    """Write caption accuracy, vitality by two similarities, and a contact sheet of 48 captions, none selected."""
    model = load(folder / "pipeline")
    classifier = AttributeClassifier.load(folder / "classifier")
    scenes = held_out_scenes(captions)
    figures = {"checkpoint": model.checkpoint_hash(), "captions": captions}
    for guidance in (1.0, 3.5):
        figures[f"accuracy at guidance {guidance}"] = caption_accuracy(
            model, classifier, scenes, guidance_scale=guidance
        )
    for name, similarity in {
        "classifier features": feature_similarity(classifier.features),
        "pixels": pixel_similarity,
    }.items():
        figures[f"vitality by {name}"] = _vitality(model, similarity).mean.tolist()
    (folder / "measured.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    log.info("%s", json.dumps(figures, indent=1))
    _contact_sheet(model, folder / "contact_sheet.png")


def _vitality(model: FlowModel, similarity: Similarity) -> Vitality:
    rng = random.Random("vitality prompts")
    prompts = [caption(scene, random_keep(rng)) for scene in held_out_scenes(PROMPTS)]
    return measure_vitality(model, prompts, similarity=similarity)


def _contact_sheet(model: FlowModel, path: Path) -> None:
    captions = [caption(scene) for scene in held_out_scenes(48)]
    images = draw_captions(model, captions, num_steps=15, guidance_scale=3.5, seed=1)
    save_png(path, comparison_grid([to_pil(image) for image in images], captions, columns=8, min_side=128))
