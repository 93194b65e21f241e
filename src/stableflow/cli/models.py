"""`stableflow models`: the checkpoints that have a short name, and how each would fit a card."""

from typing import Annotated, Any

import typer
from huggingface_hub import try_to_load_from_cache

from stableflow.cli.options import OutputFormat
from stableflow.cli.output import Format, Reporter
from stableflow.cli.plan import CARDS, fit
from stableflow.models.bundled import present
from stableflow.models.known import KNOWN, Known
from stableflow.models.memory_plan import BYTES


def models(
    height: Annotated[int, typer.Option("--height", help="Of the pictures, in pixels.")] = 1024,
    width: Annotated[int, typer.Option("--width", help="Of the pictures, in pixels.")] = 1024,
    edits: Annotated[int, typer.Option("--edits", help="Drawn at once, beside their source.", min=1)] = 1,
    form: OutputFormat = Format.text,
) -> None:
    """List checkpoints by short name: licence, size, whether it is here, and planned peak memory on each card."""
    values = {name: _facts(known, height, width, edits) for name, known in KNOWN.items()}
    lines = [f"{', '.join(present())}: bundled"]
    for name, facts in values.items():
        terms = facts["licence"] + (", asks to accept terms" if facts["gated"] else "")
        here = "in the cache" if facts["cached"] else "not here"
        lines += [f"{name}: {facts['repository']} ({terms}), {facts['gigabytes']} GB, {here}"]
        lines += [f"    {card}: {plan or 'does not fit'}" for card, plan in facts["plans"].items()]
    Reporter(quiet=True, form=form).result(values, lines)


def _facts(known: Known, height: int, width: int, edits: int) -> dict[str, Any]:
    return {
        "repository": known.repository,
        "licence": known.licence,
        "gated": known.gated,
        "gigabytes": round(sum(known.billions.values()) * BYTES["bf16"], 1),
        "cached": isinstance(try_to_load_from_cache(known.repository, "model_index.json"), str),
        "steps": known.steps,
        "guidance": known.guidance,
        "plans": {card: fit(known, card, height=height, width=width, rows=edits + 1) for card in CARDS},
    }
