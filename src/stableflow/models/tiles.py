"""Pictures larger than a model was made for: each pass is made of windows, whose seams move from time to time."""

import math
import random
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from stableflow.checks import LONGEST_SIDE, check_count, check_seed
from stableflow.errors import InputError, InterventionError
from stableflow.flow.time_grid import TimeGrid
from stableflow.models.base import Conditioning, FlowModel, Guidance, Intervention, Layer
from stableflow.types import Images, Latents

SLACK = 0.25  # of a window, at the least: how far seams can move


@dataclass(frozen=True, eq=False)
class InTiles:
    """A model whose passes over pictures larger than `side` are made of windows of that size.

    The picture is cut into cells that do not overlap, and each takes its velocity from one window of the model's own
    size around it. Where the cuts are depends on the flow time alone: at the next time they are elsewhere, so that
    seams do not add up; and the source, its inversion and its edits meet the same cuts, so that what is exact without
    tiles is exact with them. A picture that fits into one window passes untouched.

    Args:
        model: From `load` or `wrap`.
        side: Pixels on a side of a window; the model's own size when None.
        seed: Of the cuts.

    Raises:
        InputError: The model cannot run at this size.

    Example:
        >>> from stableflow.editing import FlowEdit
        >>> editor = FlowEdit(InTiles(load("tiny")), num_steps=4, n_max=3)
        >>> source = editor.generate("a dog on the grass", seed=1, num_steps=4, height=96, width=128)
        >>> editor.edit(source, "a cat on the grass").images.shape
        torch.Size([1, 3, 96, 128])

    Source: the shifted tiles of Zheng et al., "Any-Size-Diffusion" (arXiv:2308.16582). There tiles are disjoint and
    cut at the border; here border cells look out of whole windows, so nothing is drawn at a size unknown to the model.
    """

    model: FlowModel
    side: int | None = None
    seed: int = 0
    _acting: list[tuple[Intervention, ...]] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.model, FlowModel) or isinstance(self.model, InTiles):
            raise InputError(f"model must come from load or wrap, got {type(self.model).__name__}.")
        side = max(self.model.default_size) if self.side is None else check_count("side", self.side, 1, LONGEST_SIDE)
        self.model.check_size(side, side)
        check_seed("seed", self.seed)
        object.__setattr__(self, "side", side)

    def velocity(self, latents: Latents, t: float, conditioning: Conditioning, *, guidance_scale: Guidance) -> Latents:
        """Return the velocity, one window of the model after another."""
        rows, columns = self.cells(latents, t)
        if len(rows) == len(columns) == 1:
            return self.model.velocity(latents, t, conditioning, guidance_scale=guidance_scale)
        self._refuse_acting()
        made = torch.empty_like(latents, dtype=torch.float32)
        for y, window_y in rows:
            for x, window_x in columns:
                seen = latents[..., window_y, window_x]
                v = self.model.velocity(seen, t, conditioning, guidance_scale=guidance_scale)
                made[..., y, x] = v[..., _within(y, window_y), _within(x, window_x)]
        return made

    def cells(self, latents: Latents, t: float) -> tuple[list[tuple[slice, slice]], list[tuple[slice, slice]]]:
        """Return, for rows and columns of latents, the cells at a flow time and the window that each looks out of."""
        cuts, own = random.Random(f"{self.seed} {t!r}"), self._window
        patch = own * self.pixel_multiple // self._side
        height, width = (cells_of(length, own, patch, cuts.random()) for length in latents.shape[-2:])
        return height, width

    @contextmanager
    def attach(self, *interventions: Intervention) -> Generator[None]:
        """Open a block in which the interventions act, on pictures of one window."""
        with self.model.attach(*interventions):
            self._acting.append(tuple(each for each in interventions if each.hooks(self.layers)))
            try:
                yield
            finally:
                self._acting.pop()

    def _refuse_acting(self) -> None:
        for intervention in (i for block in self._acting for i in block):
            raise InterventionError(
                f"{type(intervention).__name__} acts on the layers, which see one window of {self.side} pixels at a "
                "time and not this picture. In tiles, use an editor that attaches nothing, such as flowedit, ddcm, "
                "reprompt or lomoe; or edit the picture whole, with the model itself."
            )

    def time_grid(self, num_steps: int, height: int, width: int) -> TimeGrid:
        """Return the times of a window: what the model sees is no larger."""
        return self.model.time_grid(num_steps, min(height, self._side), min(width, self._side))

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        self.check_size(height, width)
        channels, latent_side, _ = self.model.latent_shape(self._side, self._side)
        return channels, height * latent_side // self._side, width * latent_side // self._side

    def check_size(self, height: int, width: int) -> None:
        self.model.check_size(min(height, self._side), min(width, self._side))
        wrong = [length for length in (height, width) if length % self.pixel_multiple]
        if wrong:
            raise InputError(f"height and width must be multiples of {self.pixel_multiple}, got {height}x{width}.")

    def kv_bytes(self, height: int, width: int) -> int:
        return self.model.kv_bytes(min(height, self._side), min(width, self._side))

    def checkpoint_hash(self) -> str:
        return f"{self.model.checkpoint_hash()}-tiles-{self.side}-{self.seed}"

    def encode_prompt(self, prompts: Sequence[str]) -> Conditioning:
        return self.model.encode_prompt(prompts)

    def encode_image(self, images: Images) -> Latents:
        return self.model.encode_image(images)

    def decode_latents(self, latents: Latents) -> Images:
        return self.model.decode_latents(latents)

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def layers(self) -> Sequence[Layer]:
        return self.model.layers

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def pixel_multiple(self) -> int:
        return self.model.pixel_multiple

    @property
    def default_size(self) -> tuple[int, int]:
        return self.model.default_size

    @property
    def default_guidance_scale(self) -> float | None:
        return self.model.default_guidance_scale

    @property
    def modifications(self) -> tuple[str, ...]:
        return (*self.model.modifications, f"tiles of {self.side} pixels")

    @property
    def max_sequence_length(self) -> int | None:
        return getattr(self.model, "max_sequence_length", None)

    @property
    def _side(self) -> int:
        assert self.side is not None
        return self.side

    @property
    def _window(self) -> int:
        """Latent pixels on a side of a window."""
        return self.model.latent_shape(self._side, self._side)[1]


def cells_of(length: int, window: int, patch: int, shift: float) -> list[tuple[slice, slice]]:
    """Cut a length into cells, none longer than a window; returns each cell and the window around it.

    Args:
        length, window, patch: In latent pixels; windows begin at whole tokens of `patch`.
        shift: In [0, 1): where the first cut lies, of all places where it can.
    """
    if length <= window:
        return [(slice(0, length), slice(0, length))]
    count = math.ceil(length / window + SLACK)
    slack = (count * window - length) // patch
    first = window - patch * round(shift * min(slack, window // patch - 1))
    cuts = [0, *(first + i * window for i in range(count - 1)), length]
    cuts = [cut for i, cut in enumerate(cuts) if cut < length or i == len(cuts) - 1]
    starts = [min(max(0, after - window), length - window) for after in cuts[1:]]
    return [(slice(a, b), slice(s, s + window)) for a, b, s in zip(cuts, cuts[1:], starts)]


def _within(cell: slice, window: slice) -> slice:
    return slice(cell.start - window.start, cell.stop - window.start)
