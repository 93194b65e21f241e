"""Edits of a case as turns, one after the other, by what each refers to."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch

from stableflow.editing import Editor
from stableflow.editing.result import EditResult
from stableflow.editing.source import Source
from stableflow.editing.turns import Session

DRAWN_AGAIN = {"num_steps": 15, "solver": {"name": "fixed_point", "iterations": 2}}
"""How pictures of drawn sources are inverted: in as many steps as they are drawn in."""

Follow = Literal["", "source", "turn", "picture"]


def take_turns(
    editor: Editor, source: Source, prompts: Sequence[str], follow: Follow, inverted: Mapping[str, Any]
) -> EditResult:
    """Return the picture after every turn, as rows of one result.

    Args:
        prompts: All words so far, turn by turn.
        follow: "source": every turn refers to turn 0. "turn": to the path of the turn before. "picture": the turn
            before is encoded and inverted, which is what one does without sessions.
        inverted: How "picture" inverts.
    """
    session, results = Session(editor, source), list[EditResult]()
    for i, prompt in enumerate(prompts):
        if i and follow == "turn":
            session.rebase()
        if i and follow == "picture":
            again = editor.invert(results[-1].images[0], prompts[i - 1], **inverted)
            session = Session(editor, again)
        results.append(session.edit(prompt))
    nfe = {"source": source.nfe, "edit": sum(result.recipe["nfe"]["edit"] for result in results)}
    recipe = results[-1].recipe | {"nfe": nfe | {"rows": 1}}
    images, latents = (torch.cat([getattr(result, name) for result in results]) for name in ("images", "latents"))
    return dataclasses.replace(results[0], prompts=tuple(prompts), images=images, latents=latents, recipe=recipe)
