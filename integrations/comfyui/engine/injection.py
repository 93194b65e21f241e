"""An edit that begins at a source's noise and reads its keys and values, through ComfyUI's own patch points."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from stableflow.errors import InterventionError
from stableflow.interventions.address import Address
from stableflow.interventions.blend import Blend
from stableflow.models.base import TokenLayout

from .holds import Free, Hold, Holds, amounts
from .layers import SEAMS, Numbering
from .passes import (
    PREFIX,
    Heads,
    Pass,
    branches,
    count,
    entering,
    flat,
    grid_of,
    in_heads,
    layer_of,
    without_packs_own,
)
from .source import ComfySource

Times = Literal["same", "nearest"]


class Injection:
    """What one Inject node adds to its clone of the model. It keeps nothing from one run to the next.

    Args:
        source: Where keys, values, noise and path come from.
        holds: Which of its keys and values are read.
        free: Where the edit may change the picture; outside, it follows the source's path. Everywhere when None.
        numbering, patch: Of the model.
        start: The edit begins at the source's noise, whatever the sampler was given.
        times: "same" refuses a sampler that goes where the source was not; "nearest" takes the nearest time.
    """

    def __init__(
        self,
        source: ComfySource,
        holds: Holds,
        free: Free | None,
        numbering: Numbering,
        patch: int,
        *,
        start: bool = True,
        times: Times = "same",
    ):
        self.source, self.holds, self.free, self.start = source, holds, free, start
        self._numbering, self._patch, self._nearest = numbering, patch, times == "nearest"
        self.key = f"{PREFIX}-injection-{id(self)}"
        self._reading = f"{self.key}-source"
        self.layers = frozenset(layer for hold in holds if hold.weight > 0 for layer in hold.layers)
        self._stored = frozenset() if source.store is None else frozenset(source.store.entries)

    def sample(
        self,
        executor: Callable[..., Tensor],
        guider: Any,
        sigmas: Tensor,
        extra: Any,
        callback: Any,
        noise: Tensor,
        latents: Tensor | None = None,
        *rest: Any,
    ) -> Tensor:
        """Around a sampler's run: z_1 is the source's; the nudge is undone at the end."""
        self.source.check_size(tuple(noise.shape[1:]))
        if self.free is not None:
            self.free.check_rows(noise.shape[0])
        if self.start:
            sigma = sigmas[0]
            state = self.source.state(float(sigma), self._patch).to(noise).expand_as(noise)
            mixed = torch.zeros_like(noise) if latents is None else latents
            noise = (state - (1 - sigma) * mixed) / sigma  # so that sigma noise + (1 - sigma) latents is the state
        return executor(guider, sigmas, extra, callback, noise, latents, *rest) / self.source.nudge

    def predict(
        self, executor: Callable[..., Tensor], x: Tensor, timestep: Tensor, options: Any = None, seed: Any = None
    ):
        """Around each evaluation: aligned with the source's, and its own answer outside of what is free."""
        options, sigma = options or {}, float(timestep.flatten()[0])
        visit = count(options, self.key, sigma)
        place, moment = self.source.find(sigma, visit, nearest=self._nearest)
        now = Pass(place, moment)
        aligned = self.source.aligned(moment, x, self._patch)
        answer = executor(aligned, timestep, entering(options, self.key, now), seed) - (aligned - x)
        if self.layers and not now.acted:
            raise InterventionError(
                "This model's attention did not ask for patches, so nothing was held of the source. ComfyUI's does for "
                f"{SEAMS}."
            )
        if self.free is None:
            return answer
        inside = self.free.latents(tuple(x.shape[-2:]), self._patch).to(answer)
        inside = inside.reshape(inside.shape[0], *(1,) * (answer.ndim - 3), *inside.shape[-2:])
        return torch.lerp(self.source.denoised(moment, self._patch).to(answer).expand_as(answer), answer, inside)

    def apply(self, executor: Callable[..., Tensor], x: Tensor, t: Tensor, *given: Any, **others: Any) -> Tensor:
        """Around each call of the model: the source runs first where its keys and values were not kept."""
        options = given[3] if len(given) > 3 else {}
        now: Pass | None = options.get(self.key)
        if now is not None:
            for branch in dict.fromkeys(branches(options)):
                missing = [layer for layer in self.layers if not self._kept(now, branch, layer)]
                if missing:
                    self._read_source(executor, now, branch, x, t, options)
        return executor(x, t, *given, **others)

    def _read_source(
        self, executor: Callable[..., Tensor], now: Pass, branch: str, x: Tensor, t: Tensor, options: dict[str, Any]
    ) -> None:
        assert now.moment is not None
        asked = now.moment.asked.get(branch)
        if asked is None:
            raise InterventionError(
                f"The source never ran its {branch} branch, and this edit is guided by a negative prompt. Connect "
                "negative to the source's node too, or set cfg to 1."
            )
        alone = {
            **without_packs_own(options),
            self._reading: (now, branch),
            "cond_or_uncond": [0 if branch == "conditional" else 1],
        }
        where = now.moment.aligned(now.moment.state).to(x)
        executor(where, t[:1], asked.concat, asked.crossattn, None, alone, **asked.others)

    def attend(self, q: Heads, k: Heads, v: Heads, pe: Any = None, attn_mask: Any = None, extra_options: Any = None):
        """ComfyUI's attention patch: image keys and values, after QK norm and before RoPE."""
        now = extra_options.get(self.key)
        reading = extra_options.get(self._reading)
        if now is None and reading is None:
            return {}
        layer = layer_of(extra_options, self._numbering)
        if layer not in self.layers:
            return {}
        start, (rows, columns) = extra_options["img_slice"][0], grid_of(self.source.picture.shape, self._patch)
        span = slice(start, start + rows * columns)
        if reading is not None:
            now, branch = reading
            now.kept[branch, layer] = flat(k[:1, :, span]), flat(v[:1, :, span])
            return {}
        now.acted = True
        parts, layout = branches(extra_options), TokenLayout(rows, columns, start, {})
        share, keys, values = k.shape[0] // len(parts), k.clone(), v.clone()
        for number, branch in enumerate(parts):
            mine = slice(number * share, (number + 1) * share)
            for part, features in enumerate((keys, values)):
                own, source = flat(features[mine, :, span]), self._source(now, branch, layer, part, features)
                features[mine, :, span] = in_heads(self._blended(own, source, layer, layout, now), k.shape[1])
        return {"k": keys, "v": values}

    def _blended(self, own: Tensor, source: Tensor, layer: int, layout: TokenLayout, now: Pass) -> Tensor:
        for hold in self.holds:
            if layer in hold.layers:
                own = self._blend(hold, layout).apply(own, source, layout, min(now.place[0], 1.0))
        return own

    def _blend(self, hold: Hold, layout: TokenLayout) -> Blend:
        where = amounts(hold.where, self.free, (layout.image_rows, layout.image_columns))
        return Blend(hold.weight, where)

    def _kept(self, now: Pass, branch: str, layer: int) -> bool:
        return (branch, layer) in now.kept or Address(*now.place, layer, "value", branch) in self._stored

    def _source(self, now: Pass, branch: str, layer: int, part: int, like: Tensor) -> Tensor:
        if (branch, layer) in now.kept:
            features = now.kept[branch, layer][part].to(like)
        else:
            assert self.source.store is not None
            address = Address(*now.place, layer, "value" if part else "key", branch)
            features = self.source.store.get(address, like=flat(like[:1, :, : self._tokens])).to(like)
        return features if self.source.warp is None else self.source.warp.tokens(features)

    @property
    def _tokens(self) -> int:
        rows, columns = grid_of(self.source.picture.shape, self._patch)
        return rows * columns
