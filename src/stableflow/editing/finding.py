"""Regions that the model itself finds: where words show, come and go, and what an edit changes."""

import re
from functools import reduce
from typing import Any

import torch

from stableflow.editing.looking import (
    nearest,
    noised,
    on_path,
    outline_differs,
    split_words,
    where_differs,
)
from stableflow.editing.where import REGIONS, Asked, size_of, take_none
from stableflow.errors import InputError, unknown_name
from stableflow.region import Region
from stableflow.types import Latents


@REGIONS.register("word")
def of_word(run: Asked, details: str) -> Region:
    """Where words of the source's prompt show: "word:dog", "word:red hat". Found by leaving them out."""
    return _without(run, [_left(run, details)])


@REGIONS.register("shape")
def of_shape(run: Asked, details: str) -> Region:
    """The outline of where words of the source's prompt show, by the picture's colours: "shape:dog"."""
    others = run.model.encode_prompt([_left(run, details)])
    return outline_differs(run, run.source.conditioning, others, on_path(run))


@REGIONS.register("keep")
def of_all_but(run: Asked, details: str) -> Region:
    """Everything but where words of the source's prompt show, which may stand apart: "keep:dog,sign"."""
    return ~reduce(Region.__or__, [of_word(run, word) for word in details.split(",")])


@REGIONS.register("lost")
def of_lost(run: Asked, details: str) -> Region:
    """Where the words show that an edit's prompt has lost; a region an edit."""
    take_none("lost", details)
    source = run.source.conditioning.prompts[0]
    left = [split_words(source, edited)[0] for edited in run.edits.prompts]
    if source.split() in left:
        raise InputError(
            f"An edited prompt has every word of {source!r}, so there is no word whose place to look for. Leave "
            "out what is to go, or give a region."
        )
    return _without(run, [" ".join(words) for words in left])


@REGIONS.register("kept")
def of_kept(run: Asked, details: str) -> Region:
    """Where the words show that an edit's prompt has kept; a region an edit."""
    take_none("kept", details)
    source = run.source.conditioning.prompts[0]
    return _without(run, [" ".join(split_words(source, edited)[1]) for edited in run.edits.prompts])


@REGIONS.register("rewritten")
def of_rewritten(run: Any, details: str) -> Region:
    """Where lost words show in the source and new ones in a draft of the edit; a region an edit.

    The draft is the edit with nothing held, from the source's own noise. It costs one more edit, and tells where the
    model itself would put what is not there yet.
    """
    take_none("rewritten", details)
    source, drafts = run.source.conditioning.prompts[0], dict[float, Latents]()
    free = run.editor.having(policy="free", strength=None)
    drawn = free.edit(run.source, run.edits, callback=lambda record: drafts.update({record.t1: record.latents}))
    run.once("draft", lambda: drawn.latents.to(run.clean))
    states = [(t, drafts[t][-len(run.edits) :]) for t in nearest([t for t in drafts if t > 0])]
    found = []
    for row, edited in enumerate(run.edits.prompts):
        (kept, gained), lost = split_words(edited, source), split_words(source, edited)[1]
        here = Region.nowhere(size_of(run))
        if gained:
            shown = [(t, z[[row]]) for t, z in states]
            encode = run.model.encode_prompt
            here |= where_differs(run, encode([edited]), encode([" ".join(kept)]), shown)
        if lost:
            here |= _without(run, [" ".join(kept)])
        found.append(here.amount)
    return Region(torch.cat(found))


@REGIONS.register("change")
def of_change(run: Asked, details: str) -> Region:
    """Where the edits' prompts ask for something else than the source's; a region an edit."""
    take_none("change", details)
    return where_differs(run, run.source.conditioning, run.edits, noised(run))


@REGIONS.register("foreground")
def of_foreground(run: Asked, details: str) -> Region:
    """Where the source's prompt says more than an empty one: what it names."""
    take_none("foreground", details)
    return _without(run, [""])


def _left(run: Asked, words: str) -> str:
    """The source's prompt without these words."""
    prompt, wanted = run.source.conditioning.prompts[0], re.findall(r"\w+", words.lower())
    known = re.findall(r"\w+", prompt.lower())
    missing = [word for word in wanted if word not in known]
    if missing or not wanted:
        raise unknown_name("word of the source's prompt", missing[0] if missing else words, dict.fromkeys(known))
    without = re.sub(rf"\b({'|'.join(wanted)})\b", "", prompt, flags=re.IGNORECASE)
    return " ".join(without.split())


def _without(run: Asked, others: list[str]) -> Region:
    """Where the source's picture needs its prompt and not one of these will do."""
    return where_differs(run, run.source.conditioning, run.model.encode_prompt(others), on_path(run))
