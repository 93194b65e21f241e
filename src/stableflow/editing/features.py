"""Features of a picture in a diffusion transformer: which place of one picture is which place of another."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from stableflow.checks import check_count, check_number, check_points, check_seed
from stableflow.editing.passes import standard_noise
from stableflow.editing.prompts import source_prompt
from stableflow.errors import InputError
from stableflow.images import PictureLike, prepare
from stableflow.models.base import Conditioning, FlowModel, Forward, Layer, ProjectionHook
from stableflow.region import Region
from stableflow.vital.presets import resolve_layers

MASSIVE = 10.0  # times the median channel's mean size


@dataclass(frozen=True, eq=False)
class Features:
    """Unit vectors, one an image token.

    Args:
        values: By place; `values[:, y, x]` has length 1.
        size: (height, width) of the picture in pixels, padding left out.
        cell: Pixels on the side of a token.
        massive: Channels that were set to 0, since they are huge everywhere and say nothing of the place.
    """

    values: Float[Tensor, "channels token_rows token_columns"]
    size: tuple[int, int]
    cell: int
    massive: tuple[int, ...]

    def likeness(self, other: "Features") -> Float[Tensor, "own_tokens other_tokens"]:
        """Return the cosine between every token of this picture and every one of the other."""
        own, others = (rearrange(f.values, "channels y x -> (y x) channels") for f in (self, other))
        return own @ others.T

    def match(self, points: Sequence[tuple[int, int]], other: "Features") -> list[tuple[int, int]]:
        """Return where in the other picture these points are: a pixel of the token most alike.

        Args:
            points: Pixels (x, y) of this picture.
        """
        found, (rows, columns), (height, width) = [], other.values.shape[1:], other.size
        for x, y in check_points("points", points):
            if not (0 <= x < self.size[1] and 0 <= y < self.size[0]):
                raise InputError(f"point ({x}, {y}) lies outside the {self.size[1]} x {self.size[0]} pixels.")
            here = self.values[:, int(y) // self.cell, int(x) // self.cell]
            alike = torch.einsum("c,cyx->yx", here, other.values)[None, None]
            fine = F.interpolate(alike, (rows * other.cell, columns * other.cell), mode="bicubic")[0, 0]
            near = F.interpolate((alike == alike.max()).float(), fine.shape)[0, 0] > 0  # within the likest token
            place = int(fine.where(near, torch.tensor(-2.0))[:height, :width].argmax())
            found.append((place % width, place // width))
        return found

    def carry(self, region: Region, other: "Features") -> Region:
        """Return a region of this picture at where its content is in the other: each token asks its likest here."""
        padded = region.padded((self.values.shape[1] * self.cell, self.values.shape[2] * self.cell))
        amounts = padded.tokens((self.values.shape[1], self.values.shape[2]))[:, :, 0]
        moved = amounts[:, self.likeness(other).argmax(0).cpu()]
        there = rearrange(moved, "rows (y x) -> rows 1 y x", x=other.values.shape[2])
        pixels = there.repeat_interleave(other.cell, -1).repeat_interleave(other.cell, -2)[:, 0]
        return Region(pixels[:, : other.size[0], : other.size[1]])

    def consistency(self, other: "Features", region: Region | None = None) -> float:
        """Return the mean cosine at equal places, outside a region if given: how far an edit kept what was there."""
        if self.values.shape != other.values.shape:
            raise InputError(f"Pictures of one size are compared, got {self.size} and {other.size}; resize one.")
        same = (self.values * other.values).sum(0).flatten()
        if region is None:
            return float(same.mean())
        size = self.values.shape[1] * self.cell, self.values.shape[2] * self.cell
        kept = 1 - region.padded(size).tokens((self.values.shape[1], self.values.shape[2]), "any")[0, :, 0].to(same)
        return float((same * kept).sum() / kept.sum().clamp_min(1e-6))


def features(
    model: FlowModel,
    picture: PictureLike,
    prompt: str | Conditioning,
    *,
    layer: int | None = None,
    t: float = 0.26,
    draws: int = 8,
    seed: int = 0,
) -> Features:
    """Return the features of a picture: what enters a layer's key projection, after its adaptive norm.

    Args:
        prompt: What the picture shows.
        layer: In execution order; half way when None.
        t: Flow time of the noise that is added, in (0, 1).
        draws: Noises over which features are averaged; one pass each.
        seed: Of the noises. Pictures to compare take the same.

    Source: Gan et al., "Unleashing Diffusion Transformers for Visual Correspondence by Modulating Massive Activations"
    (DiTF, NeurIPS 2025), arXiv:2505.18584: one middle layer, modulation, no massive channels. There these are named by
    number for FLUX.1; here they are found. Names and numbers: t = 0.26, 8 draws, layer 28 of 57.
    """
    check_number("t", t, 0, 1, above=True)
    check_seed("seed", seed)
    chosen = len(model.layers) // 2 if layer is None else resolve_layers(model, [layer])[0]
    given = prepare(picture, multiple=model.pixel_multiple, max_side=max(model.default_size))
    told, kept = source_prompt(model, prompt), _Kept(chosen, [])
    generator = torch.Generator("cpu").manual_seed(seed)
    with torch.no_grad(), model.attach(kept):
        clean = model.encode_image(given.pixels)
        for _ in range(check_count("draws", draws)):
            noise = standard_noise(generator, clean.shape, model.device)
            model.velocity((1 - t) * clean + t * noise, t, told, guidance_scale=1.0)
    mean = torch.stack(kept.seen).mean(0)  # -> (tokens, channels)
    size = mean.abs().mean(0)
    massive = (size > MASSIVE * size.median()).nonzero().flatten()
    mean[:, massive] = 0.0
    columns = given.pixels.shape[-1] // model.pixel_multiple
    unit = rearrange(F.normalize(mean, dim=1), "(y x) channels -> channels y x", x=columns)
    return Features(unit, given.content_size, model.pixel_multiple, tuple(massive.tolist()))


@dataclass(frozen=True)
class _Kept:
    """What enters the key projection of a layer, of row 0, pass by pass."""

    layer: int
    seen: list[Tensor]

    def hooks(self, layers: Sequence[Layer]) -> list[ProjectionHook]:
        return [ProjectionHook(layers[self.layer], "key", self._keep, reads="input")]

    def _keep(self, forward: Forward, entering: Tensor) -> None:
        if forward.attention == 0 and forward.branch == "conditional":
            self.seen.append(entering[0].detach().float())
