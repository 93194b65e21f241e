"""Vitality: bypass each layer and see how much the picture changes."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from stableflow.errors import InputError, NumericsError
from stableflow.flow.integrate import integrate
from stableflow.flow.solvers import Euler
from stableflow.interventions import Bypass
from stableflow.interventions.blend import WHOLE_FLOW
from stableflow.jobs.cells import Cells, Record
from stableflow.jobs.run import Shard, Task, Told, run_tasks
from stableflow.models.base import FlowModel
from stableflow.types import Latents
from stableflow.vital.choice import Choice, Gap
from stableflow.vital.protocol import PROTOCOLS, Protocol
from stableflow.vital.racing import undecided
from stableflow.vital.similarity import SIMILARITIES, Drawn, Similarity
from stableflow.vital.vitality import Vitality

BATCH_TOKENS = 1024  # image tokens that run together by default
LEAST_TOKENS = 64  # image tokens under which scaling does not go
NOISE = 0.7  # roughness from which latents count as noise; white noise has 1
DESTROYED = 0.0  # similarity of a picture that is not finite to any other


@dataclass(frozen=True)
class Bypassed:
    """One layer bypassed, on some prompts (by number), in a window of flow times."""

    layer: int
    prompts: tuple[int, ...]
    t_window: tuple[float, float] = WHOLE_FLOW

    @property
    def keys(self) -> tuple[str, ...]:
        window = "" if self.t_window == WHOLE_FLOW else ".t-{:.4f}-{:.4f}".format(*self.t_window)
        return tuple(f"prompt-{prompt:04d}.layer-{self.layer:03d}{window}" for prompt in self.prompts)


class Measurer:
    """Draws references and bypassed pictures and compares them; references of the last prompts are kept at hand."""

    def __init__(
        self, model: FlowModel, prompts: Sequence[str], protocol: Protocol, similarities: Sequence[Similarity]
    ):
        self.model, self.prompts, self.protocol, self.similarities = model, prompts, protocol, similarities
        self._kept: tuple[tuple[int, ...], Drawn] | None = None

    def __call__(self, work: Bypassed) -> Mapping[str, Record]:
        """Return how similar the pictures are, and what is wrong with them, for each key of the work."""
        reference = self._reference(work.prompts)
        try:
            bypassed = self.draw(work.prompts, (work.layer,), work.t_window)
        except NumericsError:
            return self._one_by_one(work)
        values = {s.name: s.compare(bypassed, reference).tolist() for s in self.similarities}
        rough = roughness(bypassed.latents).tolist()
        return {
            key: {
                "similarity": {name: row[i] for name, row in values.items()},
                "flag": "noise" if rough[i] > NOISE else "",
            }
            for i, key in enumerate(work.keys)
        }

    def draw(self, numbers: Sequence[int], bypassed: Sequence[int], t_window: tuple[float, float]) -> Drawn:
        """Draw prompts by number with some layers bypassed."""
        model, protocol = self.model, self.protocol
        height, width = measured_size(model, protocol)
        shape = model.latent_shape(height, width)
        seeds = [protocol.first_seed + number for number in numbers]
        noise = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
        conditioning = model.encode_prompt([self.prompts[number] for number in numbers])

        def velocity(latents: Tensor, t: float) -> Tensor:
            return model.velocity(latents, t, conditioning, guidance_scale=_guidance(model, protocol))

        with model.attach(Bypass(bypassed, t_window)):
            latents = integrate(
                velocity, noise.to(model.device), model.time_grid(protocol.num_steps, height, width), Euler()
            )
        return Drawn(latents.cpu(), model.decode_latents(latents).cpu())

    def _reference(self, numbers: tuple[int, ...]) -> Drawn:
        if self._kept is None or self._kept[0] != numbers:
            self._kept = numbers, self.draw(numbers, (), WHOLE_FLOW)
        return self._kept[1]

    def _one_by_one(self, work: Bypassed) -> Mapping[str, Record]:
        """Of a batch that is not finite, find out which rows are."""
        if len(work.prompts) == 1:
            similarity = dict.fromkeys((s.name for s in self.similarities), DESTROYED)
            return {work.keys[0]: {"similarity": similarity, "flag": "not finite"}}
        records: dict[str, Record] = {}
        for prompt in work.prompts:
            records |= self(dataclasses.replace(work, prompts=(prompt,)))
        return records


def roughness(latents: Latents) -> Tensor:
    """Return the mean squared difference of neighbours over twice the variance, by row: 1 for noise, 0 for smooth.

    Source: von Neumann, "Distribution of the ratio of the mean square successive difference to the variance" (1941).
    """
    across, down = latents.diff(dim=-1).square().mean((1, 2, 3)), latents.diff(dim=-2).square().mean((1, 2, 3))
    return (across + down) / (4 * latents.var((1, 2, 3)).clamp(min=1e-12))


def measured_size(model: FlowModel, protocol: Protocol) -> tuple[int, int]:
    """Return height and width in pixels: the model's own, scaled, as multiples of what it can run.

    A picture keeps at least LEAST_TOKENS image tokens, or all it has: smaller ones no longer show what layers do.
    """
    multiple, (own_height, own_width) = model.pixel_multiple, model.default_size
    least = (LEAST_TOKENS * multiple**2 / (own_height * own_width)) ** 0.5
    scale = max(protocol.scale, min(1.0, least))
    height, width = (max(multiple, round(side * scale / multiple) * multiple) for side in (own_height, own_width))
    return height, width


def _guidance(model: FlowModel, protocol: Protocol) -> float | None:
    return model.default_guidance_scale if protocol.guidance_scale is None else protocol.guidance_scale


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
        if len(prompts) < 2:
            raise InputError(
                f"Vitality needs at least 2 prompts for an interval (the paper uses 64), got {len(prompts)}."
            )
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
            "guidance_scale": _guidance(self.model, self.protocol),
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
    first_seed: int = 0,
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
    settings = dataclasses.replace(settings, first_seed=first_seed, num_steps=num_steps or settings.num_steps)
    if guidance_scale is not None:
        settings = dataclasses.replace(settings, guidance_scale=guidance_scale)
    wanted = [similarity] if isinstance(similarity, (str, Similarity)) else similarity
    similarities = [SIMILARITIES[s](encoder) if isinstance(s, str) else s for s in wanted]
    job = VitalityJob(
        model, prompts, settings, similarities, choice=choice, folder=None if folder is None else Path(folder)
    )
    job.run(told=told)
    return job.result()
