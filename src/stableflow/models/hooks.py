"""Layers of a transformer, where their tokens are in a pass, and what may be hooked onto them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from stableflow.errors import InterventionError

Kind = Literal["double", "single"]
Part = Literal["key", "value"]
PARTS: tuple[Part, ...] = ("key", "value")
Branch = Literal["conditional", "unconditional"]
Stream = Literal["text", "image"]


@dataclass(frozen=True)
class TokenLayout:
    """Where image tokens are in every layer of one forward pass.

    Args:
        image_rows, image_columns: The grid of image tokens.
        text_tokens: Text length of this pass.
        image_start: For each kind of layer, the position of the first image token in what the layer's key and value
            projections see (a double layer projects its image stream alone).
        joint_start: For each stream, the position of its first token in the sequence that attention runs over.
    """

    image_rows: int
    image_columns: int
    text_tokens: int
    image_start: Mapping[Kind, int]
    joint_start: Mapping[Stream, int] = field(default_factory=dict)

    @property
    def image_tokens(self) -> int:
        return self.image_rows * self.image_columns

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
                "cannot be captured: joint_start lacks them. Name the stream in the `order` of its Family."
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
    """

    index: int
    kind: Kind
    block: nn.Module
    projections: Callable[[Part], Sequence[Projection]]
    identity: Callable[[tuple[Any, ...], Mapping[str, Any]], Any]
    watch: Callable[[AttentionObserver], Callable[[], None]] | None = None
    rotary: bool = True


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
    """

    layer: Layer
    part: Part
    function: Callable[[Forward, Float[Tensor, "batch image_tokens dim"]], Tensor | None]
    every_branch: bool = False
    value: Callable[[Forward, Float[Tensor, "1 image_tokens dim"]], Tensor | None] | None = None
    every_token: bool = False


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


Hook = ProjectionHook | BlockHook | AttentionHook | CallHook


@runtime_checkable
class Intervention(Protocol):
    """Something that reads or changes chosen layers while it is attached."""

    def hooks(self, layers: Sequence[Layer]) -> Sequence[Hook]:
        """Return the hooks that this intervention wants on these layers."""
        ...
