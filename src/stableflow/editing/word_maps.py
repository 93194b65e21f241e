"""Where words are attended to, read from passes that are run anyway."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from stableflow.editing.run import Run
from stableflow.errors import InputError, unknown_name
from stableflow.interventions import CaptureAttention
from stableflow.models.base import Forward, ShowsAttention

AT_ONCE = 256  # points of an attention map that are in memory together
FIRST = 4 / 19  # of the double layers of FLUX.1: those before are not read


@dataclass(frozen=True)
class Asked:
    """Words of one row of a pass, as text tokens of its prompt."""

    row: int
    tokens: tuple[int, ...]


@dataclass
class WordMaps:
    """Attention of every image token to some words, averaged over heads, layers and passes while `reading`.

    Args:
        run: Whose passes are read.
        asked: One map each.
        layers: That are read; all double layers but the first fifth when None.
    """

    run: Run
    asked: Sequence[Asked]
    layers: Sequence[int] | None = None
    _seen: dict[int, list[Tensor]] = field(default_factory=dict, init=False)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Open a block whose passes are read."""
        made, side = self.run.source.fingerprint, self.run.model.pixel_multiple
        every = [(x, y) for y in range(0, made.height, side) for x in range(0, made.width, side)]
        starts, size = range(0, len(every), AT_ONCE), (made.height, made.width)
        readers = [CaptureAttention(self._read, every[i : i + AT_ONCE], size, self._keeper(i)) for i in starts]
        with self.run.model.attach(*readers):
            yield

    def taken(self) -> Float[Tensor, "asked 1 token_rows token_columns"]:
        """Return the maps of what was read since they were last taken."""
        made, side = self.run.source.fingerprint, self.run.model.pixel_multiple
        parts = [torch.stack(self._seen[start]).mean(0) for start in sorted(self._seen)]
        self._seen.clear()
        return torch.cat(parts, 1).unflatten(1, (1, made.height // side, made.width // side))

    @property
    def _read(self) -> Sequence[int]:
        double = [layer.index for layer in self.run.model.layers if layer.kind == "double"]
        double = double or [layer.index for layer in self.run.model.layers]
        return double[round(FIRST * len(double)) :] if self.layers is None else self.layers

    def _keeper(self, start: int):
        def keep(forward: Forward, layer: int, probabilities: Float[Tensor, "batch points heads tokens"]) -> None:
            first = forward.layout.joint_span("text").start
            maps = [
                probabilities[ask.row, :, :, [first + token for token in ask.tokens]].sum(-1).mean(-1)
                for ask in self.asked
            ]
            self._seen.setdefault(start, []).append(torch.stack(maps))

        return keep


def tokens_of(run: Run, prompt: str, words: Sequence[str]) -> tuple[int, ...]:
    """Return the text tokens of words of a prompt, wherever they stand in it.

    Raises:
        InputError: The model does not show its attention.
        UnknownNameError: The prompt has no such word.
    """
    if not isinstance(run.model, ShowsAttention) or run.model.words is None:
        raise InputError(f"{run.model.name} does not show which text tokens its attention reads.")
    known = run.model.words(prompt)
    for word in words:
        if all(word.lower() != found.text.lower() for found in known):
            raise unknown_name("word that the model reads in the prompt", word, [found.text for found in known])
    wanted = {word.lower() for word in words}
    return tuple(token for found in known if found.text.lower() in wanted for token in found.tokens)
