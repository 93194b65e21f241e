"""Layers of a transformer, where their tokens are in a pass, and what may be hooked onto them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from stableflow.errors import InterventionError

Kind = Literal["double", "single"]
Part = Literal["key", "value"]
PARTS: tuple[Part, ...] = ("key", "value")
Branch = Literal["conditional", "unconditional"]
Stream = Literal["text", "image"]


@dataclass(frozen=True, eq=False)
class Division:
    """Image tokens of which a pass computes some and reads the keys and values of the others.

    Args:
        computed, left_out: Their places in the grid, row by row, rising; together all.
        of: All image tokens, where some are computed and read as well; else both sum up to them.
    """

    computed: Int[Tensor, " computed"]
    left_out: Int[Tensor, " left_out"]
    of: int | None = None

    @property
    def tokens(self) -> int:
        """All image tokens of the grid."""
        return len(self.computed) + len(self.left_out) if self.of is None else self.of

    def keep(self, values: Tensor, dim: int, first: int) -> Tensor:
        """Return a sequence without the tokens that are left out; its image tokens begin at `first` of `dim`."""
        before, image, after = self._parts(values, dim, first)
        return torch.cat([before, image.index_select(dim, self.computed), after], dim)

    def leave(self, values: Tensor, dim: int, first: int) -> Tensor:
        """Return a sequence's tokens that are left out, alone."""
        return self._parts(values, dim, first)[1].index_select(dim, self.left_out)

    def restore(self, values: Tensor, dim: int, first: int) -> Tensor:
        """Undo `keep`, with 0 for the tokens that were left out."""
        before, image, after = values.split(
            [first, len(self.computed), values.shape[dim] - first - len(self.computed)], dim
        )
        shape = list(image.shape)
        shape[dim] = self.tokens
        return torch.cat([before, image.new_zeros(shape).index_copy(dim, self.computed, image), after], dim)

    def _parts(self, values: Tensor, dim: int, first: int) -> tuple[Tensor, ...]:
        return values.split([first, self.tokens, values.shape[dim] - first - self.tokens], dim)


@dataclass(frozen=True)
class TokenLayout:
    """Where image tokens are in every layer of one forward pass.

    Args:
        image_rows, image_columns: The grid of image tokens.
        text_tokens: Text length of this pass.
        image_start: For each kind of layer, the position of the first image token in what the layer's key and value
            projections see (a double layer projects its image stream alone).
        joint_start: For each stream, the position of its first token in the sequence that attention runs over.
        division: Which image tokens the pass computes; None for all.
        band: Number of this process and how many there are, where each computes an equal part of the image tokens, row
            by row, and of the text; the positions above are then those in its part.
    """

    image_rows: int
    image_columns: int
    text_tokens: int
    image_start: Mapping[Kind, int]
    joint_start: Mapping[Stream, int] = field(default_factory=dict)
    division: Division | None = field(default=None, compare=False)
    band: tuple[int, int] = (0, 1)

    @property
    def image_tokens(self) -> int:
        """Image tokens that the pass computes, in this process."""
        whole = self.image_rows * self.image_columns // self.band[1]
        return whole if self.division is None else len(self.division.computed)

    def computed(self, features: Float[Tensor, "rows some_tokens dim"]) -> Float[Tensor, "rows image_tokens dim"]:
        """Return the rows of those image tokens that the pass computes, from one for each of the grid.

        What was recorded in a process's own band is that already.
        """
        number, count = self.band
        if count > 1 and features.shape[1] == self.image_tokens * count:
            return features[:, number * self.image_tokens : (number + 1) * self.image_tokens]
        return features if self.division is None else self.division.keep(features, 1, 0)

    def like_whole(self, features: Float[Tensor, "rows image_tokens dim"]) -> Float[Tensor, "rows grid_tokens dim"]:
        """Return a tensor of the type, device and shape that features of every token would have, sharing memory."""
        if self.division is None:
            return features
        return features[:, :1].expand(-1, self.division.tokens, -1)

    def image_span(self, kind: Kind) -> slice:
        """Return the positions of the image tokens in the projections of a layer of this kind."""
        start = self.image_start[kind]
        return slice(start, start + self.image_tokens)

    def joint_span(self, stream: Stream) -> slice:
        """Return the positions of a stream's tokens in the joint sequence of attention.

        Raises:
            InterventionError: The model's family does not state its joint order.
        """
        if stream not in self.joint_start:
            raise InterventionError(
                f"This model's family does not say where its {stream} tokens are in joint attention, so attention "
                "cannot be captured: joint_start lacks them. Name the stream in the `order` of its Family. Under "
                "context parallelism no process sees the whole of it."
            )
        length = self.text_tokens if stream == "text" else self.image_tokens
        return slice(self.joint_start[stream], self.joint_start[stream] + length)


@dataclass(frozen=True)
class Projection:
    """A linear map whose output holds a key or value; `columns` picks it out of a fused projection."""

    module: nn.Module
    columns: slice = field(default_factory=lambda: slice(None))


AttentionObserver = Callable[
    [
        Float[Tensor, "batch tokens heads head_dim"],
        Float[Tensor, "batch tokens heads head_dim"],
        Float[Tensor, "batch 1 #tokens tokens"] | None,
    ],
    None,
]
"""Told of the joint queries and keys of one attention as its kernel gets them, after QK norm and position encoding, and
of what the kernel adds to their products: the mask of padded text, -inf where nothing may be read."""


@dataclass(frozen=True, eq=False)
class Supplied:
    """What one attention reads of the image tokens that its pass leaves out.

    Args:
        division: Which these are.
        first: Position of the first image token in the joint sequence.
        keys, values: As they would leave their projections; one row, or one a row of the pass.
    """

    division: Division
    first: int
    keys: Float[Tensor, "batch left_out dim"]
    values: Float[Tensor, "batch left_out dim"]


Supplier = Callable[[int, Tensor], Supplied]
"""Asked at each pass of an attention, with its number in the block and what it is called with: for type and device."""


@dataclass(frozen=True)
class Layer:
    """One block of the transformer.

    Args:
        index: Place in the flat execution order, from 0.
        kind: "double" has separate image and text streams, "single" a joint one.
        block: The module.
        projections: Finds where its keys or values leave their projection, before QK norm and RoPE: one for each of
            the block's attentions over image tokens, nearly always one. Asked at every attach, since loading a LoRA
            replaces the module.
        identity: From the block's call (args, kwargs) to the output of a block that does nothing: its inputs, both
            streams, in the block's own order.
        watch: Has an observer told of the queries and keys of every pass; returns what takes it off again. None where
            the family cannot tell.
        rotary: Whether keys and queries are turned to their position after they leave their projection (RoPE); else
            positions are within the features.
        read: Has every attention of the block read keys and values of image tokens that its pass leaves out; returns
            what takes it off again. None where the family cannot.
    """

    index: int
    kind: Kind
    block: nn.Module
    projections: Callable[[Part], Sequence[Projection]]
    identity: Callable[[tuple[Any, ...], Mapping[str, Any]], Any]
    watch: Callable[[AttentionObserver], Callable[[], None]] | None = None
    rotary: bool = True
    read: Callable[[Supplier], Callable[[], None]] | None = None


@dataclass(frozen=True)
class Forward:
    """One branch of the forward pass under way.

    Args:
        t: Flow time.
        occurrence: How many earlier passes of this branch since attaching had this t (solvers may visit a time twice).
        layout: Where the tokens are.
        batch: Rows of this branch.
        branch: "unconditional" is the pass of the negative prompt under classifier-free guidance.
        attention: Which of the block's attentions, from 0; only SD3.5-medium has a second one.
    """

    t: float
    occurrence: int
    layout: TokenLayout
    batch: int
    branch: Branch = "conditional"
    attention: int = 0


@dataclass(frozen=True)
class ProjectionHook:
    """Called with the image rows of one layer's keys or values; returns their replacement, or None to leave them.

    Where a pass holds both branches of classifier-free guidance, it is called once for each, with that branch's rows.

    Args:
        every_branch: Have the unconditional branch run even where no row is guided, so that this hook sees it.
        value: What the function returns, where that depends on the rows' shape, type and device alone; given (forward,
            one row like them) before the pass. It lets the hook act inside compiled blocks.
        every_token: Called with the rows of all tokens that the projection sees: in a single layer, text as well.
        reads: "output" is the key or value; "input" is what the projection is given, which can only be looked at.
    """

    layer: Layer
    part: Part
    function: Callable[[Forward, Float[Tensor, "batch image_tokens dim"]], Tensor | None]
    every_branch: bool = False
    value: Callable[[Forward, Float[Tensor, "1 image_tokens dim"]], Tensor | None] | None = None
    every_token: bool = False
    reads: Literal["output", "input"] = "output"


@dataclass(frozen=True)
class BlockHook:
    """Called with (forward, identity output, output) of one block; returns the output to use, or None.

    The output holds the rows of all branches of the pass; `forward` is that of the first.
    """

    layer: Layer
    function: Callable[[Forward, Any, Any], Any]


@dataclass(frozen=True)
class AttentionHook:
    """Called with (forward, queries, keys, bias) of one layer's joint attention; injected keys are seen injected."""

    layer: Layer
    function: Callable[[Forward, Tensor, Tensor, Tensor | None], None]


@dataclass(frozen=True)
class CallHook:
    """Called with (forward, identity output, run) in place of one block; returns the block's output, `run()` or other.

    What it does instead of running the block is an approximation, so it goes with no `BlockHook`: a layer's effect
    cannot be measured in a pass that leaves layers out.
    """

    layer: Layer
    function: Callable[[Forward, Any, Callable[[], Any]], Any]


@dataclass(frozen=True)
class OutsideHook:
    """Has passes leave image tokens out; called with (forward, part, like) for the keys or values of these.

    One for every layer: what one layer leaves out, no other can compute. Nothing else may be attached that would see
    a part of the picture and not know it.

    Args:
        divide: Which tokens are computed, from the layout of a pass that has all and the device.
        function: Returns them in the type and on the device of `like`.
    """

    layer: Layer
    divide: Callable[[TokenLayout, torch.device], Division]
    function: Callable[[Forward, Part, Tensor], Float[Tensor, "1 left_out dim"]]


Hook = ProjectionHook | BlockHook | AttentionHook | CallHook | OutsideHook


@runtime_checkable
class Intervention(Protocol):
    """Something that reads or changes chosen layers while it is attached."""

    def hooks(self, layers: Sequence[Layer]) -> Sequence[Hook]:
        """Return the hooks that this intervention wants on these layers."""
        ...
