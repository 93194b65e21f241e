"""An edit as a source of its own: the path that it was drawn on is known, so that nothing is inverted."""

import dataclasses

import torch

from stableflow.editing.base import Editor
from stableflow.editing.fingerprint import ENCODED, Fingerprint, digest
from stableflow.editing.making import record_again
from stableflow.editing.path import Path
from stableflow.editing.prompts import source_prompt
from stableflow.editing.result import EditResult
from stableflow.editing.source import Source
from stableflow.flow.integrate import StepRecord
from stableflow.flow.trajectory import Trajectory
from stableflow.region import Region


def followed(editor: Editor, result: EditResult, prompt: str, region: Region | None) -> Source:
    """Return a picture that an editor drew, with its path, and keys and values that are recorded along it.

    The edit is drawn again, one pass a step, and its states are kept; then its prompt is walked along them, which
    are put back after every step ("paper" in its fingerprint). Of an editor that needs no path the latents are all.

    Args:
        editor: What drew the edit, with its settings.
        result: The edit alone.
        prompt, region: That it was drawn for.
    """
    model, former = editor.model, result.source
    with torch.no_grad():
        conditioning = source_prompt(model, prompt, negative=editor.negative)
        source = dataclasses.replace(
            former,
            fingerprint=_identity(former.fingerprint, result, prompt, digest(*conditioning.tensors.values())),
            conditioning=conditioning, images=result.images, given=result.images, kept={}, nfe=0,
        )  # fmt: skip
        if not editor.needs_path or former.fingerprint.inversion == ENCODED:
            return _picture_alone(source, result)
        states = Trajectory({t: former.path.at(t).to(model.device) for t in former.fingerprint.times})

        def keep(record: StepRecord) -> None:
            states.put(record.t1, record.latents[-1:])

        again = editor.edit(former, prompt, region=region, callback=keep)
        recording = editor.recording()
        made = dataclasses.replace(source.fingerprint, layers=recording.layers)
        source = dataclasses.replace(source.to(model.device), fingerprint=made, path=Path(states))
        path, evaluations = record_again(model, source, recording)
        return dataclasses.replace(source, path=path, nfe=again.recipe["nfe"]["edit"] + evaluations)


def _identity(made: Fingerprint, result: EditResult, prompt: str, conditioning: str) -> Fingerprint:
    scales = result.recipe.get("guidance_scale")
    height, width = result.images.shape[-2:]
    return dataclasses.replace(
        made, prompt=prompt, conditioning=conditioning, seed=None, noise=None, image=digest(result.images),
        picture=(height, width), inversion="paper", guidance_scale=scales[0] if scales else made.guidance_scale,
    )  # fmt: skip


def _picture_alone(source: Source, result: EditResult) -> Source:
    made = dataclasses.replace(
        source.fingerprint, times=(0.0,), guidance_scale=None, solver={}, inversion=ENCODED, nudge_scale=1.0, layers=()
    )
    return dataclasses.replace(source, fingerprint=made, path=Path(Trajectory({0.0: result.latents})))
