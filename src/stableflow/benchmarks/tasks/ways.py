"""Ways of editing that every task is compared with."""

from stableflow.benchmarks.settings import Setting

REAL = {"num_steps": 8, "solver": {"name": "fixed_point", "iterations": 3}}
"""How renders are inverted: as the preset "fast" does, whose edits are as good (docs/concepts/speed.md)."""


DRAWN = {"num_steps": 10}


def source_of(real: bool) -> dict:
    """Return how sources are made."""
    return REAL if real else DRAWN


def rivals(real: bool) -> list[Setting]:
    """Vanilla injection in the vital layers, re-prompting, FlowEdit and SDEdit, with what suits the bundled models."""
    source = source_of(real)
    return [
        Setting("vital", source=source),
        Setting("re-prompting", source=source, edit={"layers": []}),
        Setting("FlowEdit", "flowedit", {"target_guidance_scale": 3.5, "num_steps": 16, "n_max": 14}, source=source),
        Setting("SDEdit", "sdedit", {"strength": 0.8, "num_steps": 16}, source=source),
    ]


def ours(name: str, task: str, *, real: bool, masked: bool = False, **edit: object) -> Setting:
    """Return a task of ours; `masked` gives it the case's region, as a user who draws a mask does."""
    return Setting(name, source=source_of(real), edit=edit, call={"task": task}, asks=("region",) if masked else ())
