"""Pictures in one style: other prompts drawn from noise of their own, reading a first picture beside themselves.

Source: the application "consistent style" of Avrahami et al., "Stable Flow" (CVPR 2025), arXiv:2411.14430; shared
attention and its statistics as in Hertz et al., "Style Aligned" (CVPR 2024), arXiv:2312.02133.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from stableflow.checks import check_number
from stableflow.editing.base import editor
from stableflow.editing.kept_beside import needs_store
from stableflow.editing.making import Recording
from stableflow.editing.memory import KVMemory
from stableflow.editing.on_path import OnPath
from stableflow.editing.passes import standard_noise
from stableflow.editing.run import Run
from stableflow.editing.source import Source
from stableflow.flow.stochastic import turned
from stableflow.interventions import ExtendKV, MatchStatistics
from stableflow.models.base import Intervention
from stableflow.types import Latents
from stableflow.vital.presets import VITAL, resolve_layers


@editor("alike", paper="arXiv:2312.02133", good_for="new pictures in the style of a first one")
@dataclass(frozen=True, kw_only=True)
class Alike(OnPath):
    """z <- z + (t1 - t0) v(z) from new noise; v reads the source beside the picture's own tokens, and looks like it.

    In all layers values get the mean and the spread of the source's in every channel; in the vital ones attention is
    softmax(q [k ; K]^T) [v ; V] with the source's K and V. Read in all layers, what the source shows is drawn again.

    Args:
        strength: How much of the noise is new: 0 is the source, 1 (None) shares nothing of its layout.
        layers: Where the source is read: "vital" for the preset of this checkpoint, "all", or layer numbers.
        statistics: How far values take the source's statistics over, in [0, 1].
        seed: Of the noise; when None it follows from the source. Every prompt has a noise of its own.
        kv_memory: Where the source's keys and values are: "auto", "device", "cpu" or "disk".

    Example:
        >>> editor = Alike(load("tiny"))
        >>> first = editor.generate("a watercolour of a dog on the beach", seed=1)
        >>> editor.edit(first, ["a cat on the grass", "a bird in the snow"]).images.shape
        torch.Size([2, 3, 64, 64])
    """

    layers: str | Sequence[int] = VITAL
    statistics: float = 1.0
    seed: int | None = None
    kv_memory: KVMemory = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "layers", resolve_layers(self.model, self.layers))
        check_number("statistics", self.statistics, 0, 1)

    def recording(self) -> Recording:
        return Recording(tuple(range(len(self.model.layers))), self.kv_memory)

    def prepared(self, run: Run) -> Source:
        return needs_store(run, super().prepared(run), self.recording())

    def start(self, run: Run) -> Latents:
        new = torch.cat([self._noise(run, prompt) for prompt in run.edits.prompts])
        return turned(run.source.noise, new, 1.0 if self.strength is None else self.strength)

    def step(self, run: Run, z: Latents, t0: float, t1: float) -> Latents:
        return z + (t1 - t0) * run.of_edits(self.guidance(run))(z, t0)

    def interventions(self, run: Run) -> list[Intervention]:
        store, every = run.source.store, range(len(self.model.layers))
        assert store is not None
        read = [ExtendKV(resolve_layers(self.model, self.layers), store)] if self.layers else []
        return [*read, MatchStatistics(every, store, weight=self.statistics)]

    def _noise(self, run: Run, prompt: str) -> Latents:
        made = run.source.fingerprint
        seed = zlib.crc32(repr((made.seed, made.image) if self.seed is None else self.seed).encode() + prompt.encode())
        return standard_noise(torch.Generator("cpu").manual_seed(seed), run.clean.shape, run.model.device)
