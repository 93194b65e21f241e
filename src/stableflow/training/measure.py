"""Last stage: what the exported model can do, written down beside it."""

import json
import logging
from pathlib import Path

from stableflow.files import write_text_atomic
from stableflow.images import comparison_grid, save_png, to_pil
from stableflow.metrics.attributes import AttributeClassifier
from stableflow.models.base import FlowModel
from stableflow.models.load import load
from stableflow.scenes import caption
from stableflow.training.evaluate import caption_accuracy, draw_captions, held_out_scenes

log = logging.getLogger(__name__)
GUIDANCE = 3.5


def measure(folder: Path, *, captions: int, layers: int = 2) -> None:
    """Write caption accuracy and a contact sheet of 48 captions, none selected.

    The distilled model at a guidance input is set beside its teacher with true classifier-free guidance of that scale,
    two passes a step.
    """
    model, teacher = load(folder / "pipeline"), load(folder / "teacher")
    classifier = AttributeClassifier.load(folder / "classifier")
    scenes = held_out_scenes(captions, layers)
    figures = {
        "checkpoint": model.checkpoint_hash(),
        "captions": captions,
        "accuracy at guidance 1": caption_accuracy(model, classifier, scenes, guidance_scale=1.0),
        f"accuracy at guidance {GUIDANCE}": caption_accuracy(model, classifier, scenes, guidance_scale=GUIDANCE),
        f"teacher, true guidance {GUIDANCE}": caption_accuracy(
            teacher, classifier, scenes, guidance_scale=1.0, true_guidance=GUIDANCE
        ),
    }
    write_text_atomic(folder / "measured.json", json.dumps(figures, indent=1) + "\n")
    log.info("%s", json.dumps(figures, indent=1))
    _contact_sheet(model, folder / "contact_sheet.png", layers)


def _contact_sheet(model: FlowModel, path: Path, layers: int) -> None:
    captions = [caption(scene) for scene in held_out_scenes(48, layers)]
    images = draw_captions(model, captions, num_steps=15, guidance_scale=GUIDANCE, seed=1)
    save_png(path, comparison_grid([to_pil(image) for image in images], captions, columns=8, min_side=128))
