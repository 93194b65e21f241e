"""A source recorded while ComfyUI samples or inverts: its states, what the model was given, keys and values."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from stableflow.interventions.address import Address
from stableflow.interventions.store import KVStore

from .layers import Numbering
from .passes import PREFIX, Heads, Pass, branches, count, entering, flat, grid_of, layer_of
from .source import Asked, row_of, same


@dataclass(eq=False)
class Evaluation:
    """One evaluation of the model as it was heard.

    Args:
        x: Where the model was asked, one row.
        answer: The guided answer.
        asked: By branch of guidance.
    """

    x: Tensor
    answer: Tensor
    asked: dict[str, Asked] = field(default_factory=dict)


class Recorder:
    """Listens to one run of a sampler with one row.

    Args:
        numbering: Of the model.
        patch: Side of a token in latents.
        layers: Whose keys and values are kept in main memory; none are where it is empty.
        last: Of several evaluations at one time keep the last alone: an inversion that iterates.
    """

    key = f"{PREFIX}-recorder"

    def __init__(self, numbering: Numbering, patch: int, layers: Sequence[int] = (), *, last: bool = False):
        self._numbering, self._patch, self._layers, self._last = numbering, patch, frozenset(layers), last
        self.seen: dict[tuple[float, int], Evaluation] = {}
        self.store = KVStore("cpu", last_visits=last) if layers else None

    def predict(
        self, executor: Callable[..., Tensor], x: Tensor, timestep: Tensor, options: Any = None, seed: Any = None
    ):
        """Around ComfyUI's `predict_noise`: what the sampler is told at each evaluation."""
        options, sigma = options or {}, float(timestep.flatten()[0])
        visit = count(options, self.key, sigma)
        now = Pass((sigma, 0 if self._last else visit))
        heard = self.seen[now.place] = Evaluation(x[:1].float().clone(), x[:1])
        answer = executor(x, timestep, entering(options, self.key, now), seed)
        heard.answer = answer[:1].float().clone()
        return answer

    def apply(self, executor: Callable[..., Tensor], x: Tensor, t: Tensor, *given: Any, **others: Any) -> Tensor:
        """Around ComfyUI's `apply_model`: one call may hold both branches of guidance."""
        concat, crossattn, _, options = _four(given)
        now = options.get(self.key)
        if now is not None:
            parts = branches(options)
            share = x.shape[0] // len(parts)
            for number, branch in enumerate(parts):
                row, rows = number * share, x.shape[0]
                asked = Asked(
                    row_of(concat, row, rows),
                    row_of(crossattn, row, rows),
                    {name: row_of(value, row, rows) for name, value in others.items()},
                )
                self.seen[now.place].asked.setdefault(branch, self._shared(branch, asked))
        return executor(x, t, *given, **others)

    def attend(self, q: Heads, k: Heads, v: Heads, pe: Any = None, attn_mask: Any = None, extra_options: Any = None):
        """ComfyUI's attention patch: keys after QK norm and before RoPE. Changes nothing."""
        now = extra_options.get(self.key)
        layer = layer_of(extra_options, self._numbering)
        if now is None or self.store is None or layer not in self._layers:
            return {}
        now.acted = True
        parts, start = branches(extra_options), extra_options["img_slice"][0]
        rows, columns = grid_of(self.seen[now.place].x.shape, self._patch)
        span, share = slice(start, start + rows * columns), k.shape[0] // len(parts)
        for number, branch in enumerate(parts):
            for part, features in (("key", k), ("value", v)):
                row = features[number * share : number * share + 1, :, span]
                self.store.put(Address(*now.place, layer, part, branch), flat(row))
        return {}

    def _shared(self, branch: str, asked: Asked) -> Asked:
        """What does not change along the way is kept once."""
        for heard in self.seen.values():
            known = heard.asked.get(branch)
            if known is not None and same(_parts(known), _parts(asked)):
                return known
        return asked


def _parts(asked: Asked) -> Mapping[str, Any]:
    return {"concat": asked.concat, "crossattn": asked.crossattn, "others": dict(asked.others)}


def _four(given: tuple[Any, ...]) -> tuple[Any, Any, Any, dict[str, Any]]:
    concat, crossattn, control, options = (*given, *(None,) * 4)[:4]
    return concat, crossattn, control, options or {}
