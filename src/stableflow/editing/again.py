"""Edits that were not made in the place that was found for them, drawn once more in a wider one."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stableflow.editing.leaning import leaning
from stableflow.editing.least import moved, progress
from stableflow.editing.otsu import otsu_threshold
from stableflow.editing.passes import decode
from stableflow.editing.result import EditResult
from stableflow.editing.run import Method, Run
from stableflow.editing.source import Source
from stableflow.editing.wishes import Wishes
from stableflow.region import Region
from stableflow.types import Latents

TOO_LITTLE = 0.5  # of `progress` towards the draft (docs/log.md)


class Drawing(Method, Protocol):
    """What is asked of an editor."""

    def edit(self, source: Source, prompts: Wishes, **how: Any) -> EditResult: ...


def drawn_again(
    editor: Drawing, source: Source, wishes: Wishes, run: Run, result: EditResult, how: Mapping[str, Any]
) -> EditResult:
    """Return the result, or one in which edits that stopped half way have a wider region.

    A draft, the edit with nothing held, told where the new words show. Where the edit's `progress` towards it is below
    `TOO_LITTLE`, the region also takes what the draft changes within a token around it.

    Args:
        run: That drew the result.
        how: The other arguments of the call.

    Cost: six passes of two rows an edit; another run where there is one that was not made.
    """
    draft = run.once("draft", lambda: None)
    if draft is None or run.task is None or not run.task.again or run.together or run.asked is None:
        return result
    with torch.no_grad():
        made = _progress(run, result.latents.to(run.clean), draft)
        behind = made < TOO_LITTLE
        if not bool(behind.any()):
            return result
        wider = run.asked | (changed(run, draft) & run.asked.grow(run.model.pixel_multiple))
    asked = torch.where(behind.cpu()[:, None, None], wider.amount, run.asked.amount)
    again = editor.edit(source, wishes, **{**how, "region": Region(asked), "task": replace(run.task, again=False)})
    nfe = again.recipe["nfe"] | {"edit": run.nfe["edit"] + again.recipe["nfe"]["edit"]}
    told = {"progress": [round(value, 4) for value in made.tolist()], "cut": TOO_LITTLE}
    return replace(again, recipe=again.recipe | {"nfe": nfe, "again": told})


def changed(run: Run, draft: Latents) -> Region:
    """Return where a draft's picture differs from the source's: Otsu's threshold of roots, smoothed over a latent."""
    given = run.source.images
    pictures = decode(run.model, draft, (given.shape[-2], given.shape[-1]))
    side = run.source.fingerprint.height // run.clean.shape[-2] // 2 * 2 + 1
    gaps = (pictures - given).abs().mean(1, keepdim=True)
    gaps = F.avg_pool2d(F.pad(gaps, [side // 2] * 4, mode="replicate"), side, stride=1)[:, 0].sqrt()
    return Region(torch.stack([(gap > otsu_threshold(gap.flatten())).float() for gap in gaps]))


def _progress(run: Run, edits: Latents, draft: Latents) -> Float[Tensor, " edits"]:
    whole = Run(run.editor, run.source, list(run.edits.prompts))  # without a region: the whole picture is asked
    run.nfe["edit"] += 6
    leanings, start, end = (leaning(whole, z) for z in (edits, run.rows(run.clean), draft))
    return progress(leanings, start, end, moved(edits, run.clean, draft))
