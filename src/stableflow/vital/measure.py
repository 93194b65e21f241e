"""Vitality: bypass each layer and see how much the picture changes."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from stableflow.checks import check_texts
from stableflow.errors import InputError
from stableflow.jobs.cells import Cells, Record
from stableflow.jobs.run import Shard, Task, Told, run_tasks
from stableflow.models.base import FlowModel
from stableflow.reading import short
from stableflow.vital.bypassing import Bypassed, Measurer, guidance_of, measured_size, roughness
from stableflow.vital.choice import Choice, Gap, Top
from stableflow.vital.protocol import PROTOCOLS, Protocol
from stableflow.vital.racing import undecided
from stableflow.vital.similarity import SIMILARITIES, Similarity
from stableflow.vital.vitality import Vitality

BATCH_TOKENS = 1024  # image tokens that run together by default
__all__ = ["Bypassed", "Measurer", "VitalityJob", "measure_vitality", "measured_size", "roughness"]


class VitalityJob:
    """One measurement as resumable cells, a layer and a prompt each.

    Args:
        prompts: At least 2; the first `protocol.prompts` of them are used.
        folder: Where the cells are kept, so that a killed job goes on where it was; None keeps them in memory.

    Raises:
        InputError: Too few prompts, no layers, or the folder belongs to another measurement.
    """

    def __init__(
        self,
        model: FlowModel,
        prompts: Sequence[str],
        protocol: Protocol,
        similarities: Sequence[Similarity],
        *,
        choice: Choice = Gap(),
        folder: Path | None = None,
    ):
        if not model.layers:
            raise InputError(f"{model.name!r} has no transformer blocks that are known here, so none can be bypassed.")
        if len(check_texts("prompts", prompts)) < 2 or isinstance(prompts, str):
            raise InputError(
                f"Vitality needs at least 2 prompts for an interval (the paper uses 64), got {short(prompts)}."
            )
        if not similarities:
            raise InputError(f"Vitality needs a similarity: {', '.join(SIMILARITIES)}.")
        if isinstance(choice, Top):
            choice.boundary(torch.zeros(len(model.layers)))  # refused now and not after the measurement
        self.model, self.protocol, self.choice = model, protocol, choice
        self.prompts = tuple(prompts[: protocol.prompts])
        self.measurer = Measurer(model, self.prompts, protocol, similarities)
        job = {**self._described(), "prompts": list(self.prompts)}
        self.cells = Cells(folder, job | ({"choice": str(choice)} if protocol.racing else {}))

    def _described(self) -> dict[str, object]:
        height, width = measured_size(self.model, self.protocol)
        return {
            "model": self.model.name,
            "checkpoint": self.model.checkpoint_hash(),
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "height": height,
            "width": width,
            **dataclasses.asdict(self.protocol),
            "prompts": len(self.prompts),
            "batch": self.batch,
            "guidance_scale": guidance_of(self.model, self.protocol),
            "similarity": [similarity.name for similarity in self.measurer.similarities],
        }

    @property
    def batch(self) -> int:
        """How many prompts run together."""
        if self.protocol.batch is not None:
            return self.protocol.batch
        height, width = measured_size(self.model, self.protocol)
        tokens = (height // self.model.pixel_multiple) * (width // self.model.pixel_multiple)
        return max(1, BATCH_TOKENS // tokens)

    def tasks(self, layers: Sequence[int] | None = None) -> list[Task[Bypassed]]:
        """Return the work on some layers (all by default), prompts first."""
        layers = range(len(self.model.layers)) if layers is None else layers
        return [_task(layer, prompts) for prompts in self.batches() for layer in layers]

    def run(self, *, shard: Shard = Shard(), told: Told | None = None) -> bool:
        """Measure what is not measured yet; returns whether the whole job is done.

        Raises:
            InputError: A shard of a race, which decides what to measure as it goes.
        """
        if not self.protocol.racing:
            return run_tasks(self.tasks(), self.measurer, self.cells, shard=shard, told=told)
        if shard.count > 1:
            raise InputError("A race decides what to measure as it goes and cannot be sharded; use protocol 'exact'.")
        self._race(told)
        return True

    def _race(self, told: Told | None) -> None:
        """After every batch of prompts, go on with the layers that are not clear of the boundary."""
        active, total = list(range(len(self.model.layers))), len(self.model.layers) * len(self.prompts)
        for number, prompts in enumerate(self.batches()):
            run_tasks([_task(layer, prompts) for layer in active], self.measurer, self.cells)
            if (number + 1) * self.batch < self.protocol.least:
                continue
            active = undecided(self._scores(self.measurer.similarities[0].name), self.choice, self.protocol.confidence)
            if told is not None:
                told(total if not active else len(self.cells), total)
            if not active:
                return

    def _scores(self, similarity: str) -> Tensor:
        """Return 1 - similarity, (layers, prompts), NaN where nothing is measured."""
        scores = torch.full((len(self.model.layers), len(self.prompts)), float("nan"))
        for layer, prompt, record in self._records():
            scores[layer, prompt] = 1 - record["similarity"][similarity]
        return scores

    def _records(self) -> Iterator[tuple[int, int, Record]]:
        for layer in range(len(self.model.layers)):
            for prompt, key in enumerate(Bypassed(layer, tuple(range(len(self.prompts)))).keys):
                if self.cells.has([key]):
                    yield layer, prompt, self.cells[key]

    def result(self) -> Vitality:
        """Gather the cells that are there."""
        scores = {s.name: self._scores(s.name) for s in self.measurer.similarities}
        measured = ~next(iter(scores.values())).isnan()
        used = measured.any(dim=0)
        return Vitality(
            by_similarity={name: values[:, used] for name, values in scores.items()},
            checkpoint=self.model.checkpoint_hash(),
            model=self.model.name,
            kinds=tuple(layer.kind for layer in self.model.layers),
            prompts=tuple(prompt for prompt, keep in zip(self.prompts, used.tolist()) if keep),
            protocol=self._described(),
            choice=self.choice,
            flags={layer: record["flag"] for layer, _, record in self._records() if record["flag"]},
            passes=int(measured.sum() + used.sum()) * self.protocol.num_steps,
        )

    def batches(self) -> list[tuple[int, ...]]:
        """Return the prompts that run together, by number."""
        numbers, size = range(len(self.prompts)), self.batch
        return [tuple(numbers[start : start + size]) for start in range(0, len(numbers), size)]


def _task(layer: int, prompts: tuple[int, ...]) -> Task[Bypassed]:
    work = Bypassed(layer, prompts)
    return Task(work.keys, work)


def measure_vitality(
    model: FlowModel,
    prompts: Sequence[str],
    *,
    protocol: str | Protocol = "exact",
    similarity: str | Similarity | Sequence[str | Similarity] = "latent_cosine",
    encoder: str = "",
    choice: Choice = Gap(),
    num_steps: int | None = None,
    guidance_scale: float | None = None,
    first_seed: int | None = None,
    folder: str | Path | None = None,
    told: Told | None = None,
) -> Vitality:
    """Measure how much the picture depends on each layer.

    Cost: (layers + 1) x steps model evaluations of one row for each prompt; a race takes fewer.

    Args:
        prompts: Diverse; the paper uses 64.
        protocol: "exact" is the paper's; "racing" stops measuring layers that are clear of the boundary; "fast" also
            takes fewer steps and prompts.
        similarity: One or more names in `SIMILARITIES`, or similarities; sets are chosen by the first.
        encoder: Folder or hub id of the encoder that a similarity needs.
        choice: Which layers are vital: `Gap`, `Top` or `Threshold`.
        num_steps, guidance_scale, first_seed: Instead of the protocol's.
        folder: Keep every result here as it comes; the same call goes on where it was.
        told: Told how many cells are done, of how many.

    Raises:
        InputError: Too few prompts, or a setting is out of range.

    Source: Avrahami et al., "Stable Flow" (CVPR 2025), arXiv:2411.14430, measuring the effect of a layer. The paper's
    similarity is the DINOv2 cosine.
    """
    settings = PROTOCOLS[protocol] if isinstance(protocol, str) else protocol
    given = {"num_steps": num_steps, "guidance_scale": guidance_scale, "first_seed": first_seed}
    settings = dataclasses.replace(settings, **{name: value for name, value in given.items() if value is not None})
    wanted = [similarity] if isinstance(similarity, (str, Similarity)) else similarity
    similarities = [SIMILARITIES[s](encoder) if isinstance(s, str) else s for s in wanted]
    job = VitalityJob(
        model, prompts, settings, similarities, choice=choice, folder=None if folder is None else Path(folder)
    )
    job.run(told=told)
    return job.result()
