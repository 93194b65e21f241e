"""Which layers to inject in, chosen by what injecting them does instead of by what bypassing them does."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from stableflow.checks import check_count, check_steps
from stableflow.editing.dial import dial_weight
from stableflow.editing.methods.stable_flow import StableFlow
from stableflow.editing.passes import decode
from stableflow.editing.run import Run
from stableflow.editing.source import Source
from stableflow.errors import InputError
from stableflow.flow.integrate import walk
from stableflow.interventions import InjectKV
from stableflow.interventions.blend import Blend
from stableflow.jobs.cells import Cells, Record
from stableflow.jobs.run import Told
from stableflow.models.base import FlowModel
from stableflow.types import Images, Latents

DIAL = (1.0, 0.9, 0.8, 0.7, 0.6)
"""Strengths in all layers beside the sets: what is kept is weighed against edits as this dial exchanges them."""

LEAST, CONFIDENCE = 6, 0.95


@dataclass(frozen=True)
class Pair:
    """A source to draw and an edit of it.

    Args:
        id: Of its cells.
    """

    id: str
    prompt: str
    edited: str
    seed: int


Judging = Callable[[Pair, Run, Float[Tensor, "1 3 height width"], Latents, Images], Mapping[str, Sequence[float]]]
"""From a pair, its run, the source's picture, and edits as latents and pictures to `edited` and `kept`, one a row; the
first row is the free edit."""


@dataclass
class ByInjection:
    """A measurement as resumable cells, a pair and a set of layers each; all sets of a pair are rows of one batch.

    Args:
        pairs: Edits to try; at least 6.
        judge: Says how far each is made, and how much of the source is kept.
        name: Of the judge, which cells depend on.
        most: Layers in a set at most.
        breadth: How many of the best layers are tried beside those chosen.
        racing: Stop measuring single layers that are clear of the best.
        num_steps: Of every draw.
        folder: Where cells are kept.
    """

    model: FlowModel
    pairs: Sequence[Pair]
    judge: Judging
    name: str
    most: int = 2
    breadth: int = 6
    racing: bool = True
    num_steps: int = 15
    folder: Path | None = None
    told: Told | None = None
    cells: Cells = field(init=False)

    def __post_init__(self) -> None:
        check_count("most", self.most, 1, len(self.model.layers))
        check_steps("num_steps", self.num_steps)
        if len(self.pairs) < LEAST:
            raise InputError(f"Choosing layers takes at least {LEAST} edits, got {len(self.pairs)}.")
        job = {
            "model": self.model.name, "checkpoint": self.model.checkpoint_hash(), "judge": self.name,
            "num_steps": self.num_steps, "pairs": [[pair.prompt, pair.edited, pair.seed] for pair in self.pairs],
        }  # fmt: skip
        self.cells = Cells(self.folder, job)

    def run(self) -> dict[str, object]:
        """Measure single layers, then grow the best by one layer at a time; returns what was found, as JSON values."""
        layers = [(layer.index,) for layer in self.model.layers]
        active = list(layers)
        for i, pair in enumerate(self.pairs):
            self._measure(pair, active)
            if self.racing and i + 1 >= LEAST:
                active = self._unbeaten(active, self.pairs[: i + 1])
            if self.told is not None:
                self.told(i + 1, len(self.pairs))
        ranked = sorted(layers, key=lambda found: -self.score(found))
        chosen, tried = ranked[0], []
        while len(chosen) < self.most:
            wider = [tuple(sorted({*chosen, *more})) for more in ranked[: self.breadth + 1] if more[0] not in chosen]
            for pair in self.pairs:
                self._measure(pair, wider[: self.breadth])
            tried += wider[: self.breadth]
            best = max(wider[: self.breadth], key=self.score)
            if self.score(best) <= self.score(chosen):
                break
            chosen = best
        return self._found(chosen, [*layers, *tried])

    def score(self, layers: Sequence[int]) -> float:
        """Return the mean of kept + exchange x edited over the pairs that this set was measured on."""
        return float(np.mean(list(self._scores(layers).values())))

    @property
    def exchange(self) -> float:
        """How much of what is kept the dial gives for one more edit made: the slope of a line through its stops."""
        stops = np.array([self._mean(f"dial-{strength:g}") for strength in DIAL])
        edited, kept = (stops - stops.mean(0)).T
        spread = float((edited**2).sum())
        return 0.0 if spread == 0 else max(0.0, -float((edited * kept).sum()) / spread)

    def _unbeaten(self, active: Sequence[tuple[int, ...]], pairs: Sequence[Pair]) -> list[tuple[int, ...]]:
        """The layers whose score is not clear below the best one's, pair by pair, with Bonferroni's correction."""
        scores = {layers: np.array([self._scores(layers)[pair.id] for pair in pairs]) for layers in active}
        best = max(active, key=lambda layers: scores[layers].mean())
        bound = NormalDist().inv_cdf(1 - (1 - CONFIDENCE) / (2 * len(active)))
        behind = {layers: scores[best] - scores[layers] for layers in active}
        error = {layers: found.std(ddof=1) / len(found) ** 0.5 for layers, found in behind.items()}
        return [layers for layers in active if behind[layers].mean() <= bound * error[layers]]

    def _scores(self, layers: Sequence[int]) -> dict[str, float]:
        exchange, name = self.exchange, _name(layers)
        cells = {pair.id: f"{pair.id}.{name}" for pair in self.pairs}
        there = {pair: self.cells[key] for pair, key in cells.items() if self.cells.has([key])}
        return {pair: cell["kept"] + exchange * cell["edited"] for pair, cell in there.items()}

    def _mean(self, name: str) -> tuple[float, float]:
        keys = [f"{pair.id}.{name}" for pair in self.pairs]
        there = [self.cells[key] for key in keys if self.cells.has([key])]
        return float(np.mean([c["edited"] for c in there])), float(np.mean([c["kept"] for c in there]))

    def _measure(self, pair: Pair, sets: Sequence[tuple[int, ...]]) -> None:
        """Draw what is not there yet: the sets, and the dial's stops in front, all in one batch."""
        missing = [layers for layers in sets if not self.cells.has([f"{pair.id}.{_name(layers)}"])]
        if not missing:
            return
        names = [*(f"dial-{strength:g}" for strength in DIAL), *map(_name, missing)]
        for name, record in zip(names, self._draw(pair, missing)):
            self.cells.put(f"{pair.id}.{name}", record)

    def _draw(self, pair: Pair, sets: Sequence[tuple[int, ...]]) -> list[Record]:
        model, total = self.model, len(self.model.layers)
        amounts = torch.zeros(len(DIAL) + len(sets), total)
        amounts[: len(DIAL)] = torch.tensor([dial_weight(strength) for strength in DIAL])[:, None]
        for row, layers in enumerate(sets):
            amounts[len(DIAL) + row, list(layers)] = 1.0
        editor = StableFlow(model, layers=range(total), kv_memory="device")
        source = editor.generate(pair.prompt, seed=pair.seed, num_steps=self.num_steps)
        with torch.no_grad():
            run = Run(editor, source, [pair.edited] * len(amounts))
            latents = edits_by_row(editor, run, source, amounts)
            judged = self.judge(pair, run, source.images, latents, decode(model, latents, source.images.shape[-2:]))
        return [{"edited": edited, "kept": kept} for edited, kept in zip(judged["edited"], judged["kept"])]

    def _found(self, chosen: tuple[int, ...], sets: Sequence[tuple[int, ...]]) -> dict[str, object]:
        def told(layers: tuple[int, ...]) -> dict[str, object]:
            scores = np.array(list(self._scores(layers).values()))
            drawn = np.random.default_rng(0).integers(len(scores), size=(2000, len(scores)))
            low, high = np.percentile(scores[drawn].mean(axis=1), [2.5, 97.5])
            edited, kept = self._mean(_name(layers))
            return {
                "layers": list(layers), "edited": round(edited, 4), "kept": round(kept, 4), "edits": len(scores),
                "score": round(float(scores.mean()), 4), "interval": [round(float(low), 4), round(float(high), 4)],
            }  # fmt: skip

        return {
            "format": 1, "by": "injection", "model": self.model.name, "checkpoint": self.model.checkpoint_hash(),
            "judge": self.name, "edits": len(self.pairs), "exchange": round(self.exchange, 4), "layers": list(chosen),
            "sets": [told(layers) for layers in sets],
        }  # fmt: skip


def edits_by_row(editor: StableFlow, run: Run, source: Source, amounts: Float[Tensor, "edits layers"]) -> Latents:
    """Return a run's edits where each row injects each layer by an amount of its own, 0 to 1."""
    made, side = source.fingerprint, run.model.pixel_multiple
    grid = (made.height // side, made.width // side)
    assert source.store is not None, "the source was recorded on the device"
    injected = [
        InjectKV([layer], source.store, Blend(token_mask=amounts[:, layer, None, None].expand(-1, *grid)))
        for layer in range(amounts.shape[1])
    ]
    with run.attached(injected):
        return editor.finish(run, walk(run.step, editor.start(run), run.grid))


def _name(layers: Sequence[int]) -> str:
    return "set-" + "-".join(map(str, layers))
