"""Edits of synthetic scenes, judged by ground truth: was the word obeyed, and was everything else kept?"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stableflow.editing.source import Source
from stableflow.editing.stable_flow import StableFlow
from stableflow.metrics.attributes import AttributeClassifier
from stableflow.scenes import (
    ATTRIBUTES,
    HIDDEN,
    Scene,
    caption,
    changed_region,
    edit,
    random_keep,
    render,
    sample_split,
)

FIRST_SEED = 20_000_000  # neither trained nor validated on
KINDS = ("pose", "companion", "hat", "place", "colour", "subject", "time")


@dataclass(frozen=True)
class SceneEdit:
    """One word changed in a scene's caption, which leaves other attributes unsaid as training captions do.

    Args:
        attribute: What changes; a hat or companion is always added, never removed.
        told: Attributes that both captions name.
    """

    source: Scene
    target: Scene
    attribute: str
    told: frozenset[str]
    seed: int

    @property
    def prompts(self) -> tuple[str, str]:
        return caption(self.source, self.told), caption(self.target, self.told)


@dataclass(frozen=True)
class Outcome:
    """What became of one edit; shares are between 0 and 1.

    Args:
        edited: The classifier reads the new value.
        told_kept, hidden_kept: Share of the other captioned and of the hidden properties read as on the source.
        psnr: Of the edit against the source in dB: all of it, or outside the changed region where that is known.
    """

    edited: float
    told_kept: float
    hidden_kept: float
    psnr: float


def scene_edits(count: int) -> list[SceneEdit]:
    """Return edits of held-out scenes, each kind in turn; the i-th is always the same."""
    cases = []
    for i in range(count):
        rng = random.Random(f"scene edit {i}")
        attribute = KINDS[i % len(KINDS)]
        source = sample_split(FIRST_SEED + i, held=True)
        if attribute in ("hat", "companion"):
            source = edit(source, **{attribute: "none"})
        values = [value for value in ATTRIBUTES[attribute] if value not in (getattr(source, attribute), "none")]
        target = edit(source, **{attribute: rng.choice(values)})
        told = random_keep(rng) | {attribute, "hat", "subject"}
        cases.append(SceneEdit(source, target, attribute, told, seed=i))
    return cases


def drawn_sources(editor: StableFlow, cases: Sequence[SceneEdit]) -> list[Source]:
    """Draw the source of every case from its caption and seed."""
    return [editor.generate(case.prompts[0], seed=case.seed) for case in cases]


def real_sources(editor: StableFlow, cases: Sequence[SceneEdit], **settings) -> list[Source]:
    """Invert the render of every case."""
    return [editor.invert(render(case.source), case.prompts[0], **settings) for case in cases]


def run_edits(
    editor: StableFlow,
    classifier: AttributeClassifier,
    cases: Sequence[SceneEdit],
    sources: Sequence[Source],
    *,
    real: bool,
    **settings,
) -> tuple[list[Outcome], Tensor]:
    """Edit every source and judge it.

    Args:
        real: Sources are inverted renders: compare with the render, outside the exactly known changed region.
        settings: Of `StableFlow.edit`, such as `layers` and `t_window`.

    Returns:
        An outcome a case, and the edited pictures.
    """
    edits = torch.cat([editor.edit(source, case.prompts[1], **settings).images for case, source in zip(cases, sources)])
    originals = torch.stack([render(case.source) for case in cases]) if real else torch.cat([s.images for s in sources])
    before, after = _read(classifier, originals), _read(classifier, edits)
    outcomes = []
    for i, case in enumerate(cases):
        same = {name: float(before[i][name] == after[i][name]) for name in [*ATTRIBUTES, *HIDDEN]}
        others = [name for name in ATTRIBUTES if name != case.attribute]
        keep = ~changed_region(case.source, case.target) if real else torch.ones(edits.shape[-2:], dtype=torch.bool)
        error = (edits[i] - originals[i]).square()[:, keep].mean()
        outcomes.append(
            Outcome(
                edited=float(after[i][case.attribute] == getattr(case.target, case.attribute)),
                told_kept=_mean([same[name] for name in others]),
                hidden_kept=_mean([same[name] for name in HIDDEN]),
                psnr=float(-10 * error.clamp(min=1e-6).log10()),
            )
        )
    return outcomes, edits


def summarise(outcomes: Sequence[Outcome]) -> dict[str, tuple[float, float]]:
    """Return mean and standard error of every figure."""
    table = torch.tensor([[o.edited, o.told_kept, o.hidden_kept, o.psnr] for o in outcomes])
    means, errors = table.mean(0).tolist(), (table.std(0) / len(outcomes) ** 0.5).tolist()
    return dict(zip(("edited", "told_kept", "hidden_kept", "psnr"), zip(means, errors)))


def _read(classifier: AttributeClassifier, images: Tensor) -> list[dict[str, str]]:
    return [reading for part in images.split(100) for reading in classifier.read(part)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
