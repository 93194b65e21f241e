"""What a measurement found, with its uncertainty."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat
from torch import Tensor

from stableflow.errors import InputError, LoadError
from stableflow.files import write_text_atomic
from stableflow.reading import read_json, short, validated
from stableflow.vital.choice import Choice, Gap, Threshold, Top, choose, parse_choice

FORMAT = 1
RESAMPLES = 2000


@dataclass(frozen=True, eq=False)
class Vitality:
    """How much the picture depends on each layer.

    Args:
        by_similarity: For each similarity, 1 - similarity of the picture with the layer bypassed to the reference,
            (layers, prompts); NaN where racing left a prompt out. The first is the one that sets are chosen by.
        checkpoint: Of the model that was measured.
        model: Its name.
        kinds: "double" or "single", a layer each.
        prompts: What was drawn; prompt i from seed first_seed + i.
        protocol: Settings of the measurement.
        choice: The rule of `chosen`.
        flags: Of layers whose bypass destroyed pictures: "noise" or "not finite".
        passes: Rows that went through the model.
    """

    by_similarity: Mapping[str, Float[Tensor, "layers prompts"]]
    checkpoint: str
    model: str = ""
    kinds: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    protocol: Mapping[str, Any] = field(default_factory=dict)
    choice: Choice = Gap()
    flags: Mapping[int, str] = field(default_factory=dict)
    passes: int = 0

    @property
    def scores(self) -> Float[Tensor, "layers prompts"]:
        """Those of the first similarity."""
        return next(iter(self.by_similarity.values()))

    @property
    def mean(self) -> Float[Tensor, " layers"]:
        """The vitality of each layer."""
        return self.scores.nanmean(dim=1)

    @property
    def chosen(self) -> tuple[int, ...]:
        """The vital layers by this measurement's own rule."""
        return choose(self.mean, self.choice)

    def using(self, similarity: str) -> "Vitality":
        """Return the same measurement seen through another of its similarities."""
        rest = {name: scores for name, scores in self.by_similarity.items() if name != similarity}
        return dataclasses.replace(self, by_similarity={similarity: self.by_similarity[similarity], **rest})

    def top(self, count: int) -> tuple[int, ...]:
        """Return the `count` most vital layers, in execution order."""
        return choose(self.mean, Top(count))

    def above(self, threshold: float) -> tuple[int, ...]:
        """Return the layers of at least this vitality: the paper's V = { l : vitality(l) >= threshold }."""
        return choose(self.mean, Threshold(threshold))

    def interval(self, level: float = 0.95) -> tuple[Float[Tensor, " layers"], Float[Tensor, " layers"]]:
        """Return the bootstrap percentile interval of each layer's vitality over the prompts."""
        means = self._resampled_means()
        tail = (1 - level) / 2
        return means.quantile(tail, dim=0), means.quantile(1 - tail, dim=0)

    def stability(self) -> Float[Tensor, " layers"]:
        """Return how often each layer is chosen over bootstrap resamples of the prompts, in [0, 1]."""
        chosen = torch.zeros(len(self.mean))
        means = self._resampled_means()
        for sample in means:
            chosen[list(choose(sample, self.choice))] += 1
        return chosen / len(means)

    def _resampled_means(self) -> Float[Tensor, "samples layers"]:
        """Means over prompts drawn with replacement, the same prompts for every layer.

        Under racing a layer can miss all prompts of a resample; its mean over what it was measured on stands in.
        """
        prompts = self.scores.shape[1]
        drawn = torch.from_numpy(np.random.default_rng(0).integers(prompts, size=(RESAMPLES, prompts)))
        means = torch.stack([self.scores[:, index].nanmean(dim=1) for index in drawn])
        return torch.where(means.isnan(), self.mean, means)

    def save(self, path: str | Path) -> None:
        """Write everything as JSON."""
        low, high = self.interval()
        content = {
            "format": FORMAT,
            "model": self.model,
            "checkpoint": self.checkpoint,
            "protocol": dict(self.protocol),
            "choice": str(self.choice),
            "chosen": list(self.chosen),
            "kinds": list(self.kinds),
            "vitality": self.mean.tolist(),
            "interval": [low.tolist(), high.tolist()],
            "stability": self.stability().tolist(),
            "flags": {str(layer): flag for layer, flag in self.flags.items()},
            "passes": self.passes,
            "prompts": list(self.prompts),
            "scores": {name: _to_json(scores) for name, scores in self.by_similarity.items()},
        }
        write_text_atomic(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

    @staticmethod
    def load(path: str | Path) -> "Vitality":
        """Read what `save` wrote.

        Raises:
            LoadError: The file is missing, damaged or something else.
        """
        try:
            return Vitality._loaded(path)
        except (LoadError, InputError) as error:
            raise LoadError(
                f"{path} is no vitality file ({error}) `stableflow vital MODEL --out FOLDER` writes one."
            ) from error

    @staticmethod
    def _loaded(path: str | Path) -> "Vitality":
        where, content = str(path), read_json(path)
        if isinstance(content, dict) and content.get("format", FORMAT) != FORMAT:
            raise LoadError(f"{path} has format {short(content['format'])}; this version reads {FORMAT}.")
        stored = validated(_Stored, content, where=where)
        shapes = {(len(rows), len(row)) for rows in stored.scores.values() for row in rows}
        if shapes != {(len(stored.kinds), len(stored.prompts))}:
            raise LoadError(f"{where}: scores: not a row a layer and a number a prompt.")
        if any(not 0 <= layer < len(stored.kinds) for layer in stored.flags):
            raise LoadError(f"{where}: flags: of a layer that there is not.")
        return Vitality(
            by_similarity={name: _from_json(rows) for name, rows in stored.scores.items()},
            checkpoint=stored.checkpoint,
            model=stored.model,
            kinds=tuple(stored.kinds),
            prompts=tuple(stored.prompts),
            protocol=stored.protocol,
            choice=parse_choice(stored.choice),
            flags=stored.flags,
            passes=stored.passes,
        )


class _Stored(BaseModel):
    """What a vitality file must hold; the rest of it follows from this."""

    model_config = ConfigDict(extra="allow")
    format: Literal[1]
    model: str
    checkpoint: str
    protocol: dict[str, Any]
    choice: str
    kinds: list[Literal["double", "single"]] = Field(min_length=1)
    flags: dict[int, str]
    passes: int = Field(ge=0)
    prompts: list[str] = Field(min_length=1)
    scores: dict[str, list[list[FiniteFloat | None]]] = Field(min_length=1)


def _to_json(scores: Tensor) -> list[list[float | None]]:
    return [[None if np.isnan(value) else value for value in row] for row in scores.tolist()]


def _from_json(rows: list[list[float | None]]) -> Tensor:
    return torch.tensor([[float("nan") if value is None else value for value in row] for row in rows])
