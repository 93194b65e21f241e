"""What a model family declares: data, two or three functions, and a function wherever it differs from the usual."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stableflow.flow.time_grid import TimeGrid
from stableflow.models.following import Reading
from stableflow.models.guidance import Guided, guide
from stableflow.models.hooks import AttentionObserver, Branch, Kind, Layer, Part, Projection, Stream, TokenLayout
from stableflow.models.latents import PATCH, VAE, Autoencoder, default_side, joint_positions, pack, unpack
from stableflow.models.outside import Outside, read_outside, text_first
from stableflow.models.prompts import Reader
from stableflow.models.reference import Refer
from stableflow.models.times import TIMESTEPS, shifted_by_size
from stableflow.models.watch import attention_of, projections_of, text_and_image, watch_text_first
from stableflow.types import Latents

Encode = Callable[[Any, list[str], int, torch.device], Mapping[str, Tensor]]
"""From (pipeline, prompts, text tokens, device) to the transformer's tensors."""


@dataclass(frozen=True)
class Blocks:
    """One list of a transformer's blocks, all of a kind; the usual is diffusers' names and FLUX's attention.

    Args:
        kind: "double" has separate image and text streams, "single" a joint one.
        where: The transformer's attribute.
        identity: From a block's call (args, kwargs) to the output of a block that does nothing, in its own order.
        attentions: A block's attentions over image tokens, the joint one first.
        projections: From (attentions, index of the layer, part) to where their keys or values leave, before QK norm.
        watch: Has an observer told of a joint attention's queries and keys; None where the family cannot tell yet.
        rotary: Whether attention turns keys and queries to their position; else positions are added to the tokens.
        outside: How its attentions read image tokens that a pass leaves out; None where they cannot yet.
    """

    kind: Kind
    where: str
    identity: Callable[[tuple[Any, ...], Mapping[str, Any]], Any] = text_and_image
    attentions: Callable[[Any], Sequence[Any]] = attention_of
    projections: Callable[[Sequence[Any], int, Part], Sequence[Projection]] = projections_of
    watch: Callable[[Any, AttentionObserver], Callable[[], None]] | None = watch_text_first
    rotary: bool = True
    outside: Outside | None = text_first

    def layers(self, transformer: nn.Module, first: int) -> Iterator[Layer]:
        """Yield the layers of this list, the first with index `first`."""
        for index, block in enumerate(getattr(transformer, self.where), first):
            attentions = self.attentions(block)
            watch = None if self.watch is None else partial(self.watch, attentions[0])
            read = None if self.outside is None else partial(read_outside, attentions, self.outside)
            projections = partial(self.projections, attentions, index)
            yield Layer(index, self.kind, block, projections, self.identity, watch, self.rotary, read)


@dataclass(frozen=True)
class Sizes:
    """Measures of one checkpoint.

    Args:
        pixel: Pixels on a side of a latent pixel.
        patch: Latent pixels on a side of a token.
        channels: Of latents.
        side: Height and width in pixels when none are given.
        kv: Numbers that one image token's keys take in one layer, of all its attentions.
        longest: Most pixels on a side; None where positions set no limit.
    """

    pixel: int
    patch: int
    channels: int
    side: int
    kv: int
    longest: int | None = None


def packed_sizes(pipeline: Any) -> Sizes:
    """The usual measures: the transformer's channels are those of 2 x 2 latent pixels."""
    transformer = pipeline.transformer
    channels = transformer.config.in_channels // PATCH**2
    return Sizes(pipeline.vae_scale_factor, PATCH, channels, default_side(pipeline.vae), transformer.inner_dim)


@dataclass(frozen=True)
class Pass:
    """What one call of the transformer is made from; rows are those of all its branches.

    Args:
        latents: On the transformer's device and in its type.
        timestep: 1000 t in float32, one a row.
        guidance: Scale of every row, where it is embedded.
        layout: Where the tokens are.
        tensors: The conditioning's, by the transformer's own names.
    """

    latents: Latents
    timestep: Float[Tensor, " batch"]
    guidance: Float[Tensor, " batch"] | None
    layout: TokenLayout
    tensors: Mapping[str, Tensor]

    @property
    def t(self) -> Float[Tensor, " batch"]:
        """Flow times in the latents' type, rounded as most pipelines do: after the factor 1000."""
        return self.timestep.to(self.latents.dtype) / TIMESTEPS


def joint_inputs(given: Pass) -> dict[str, Any]:
    """What FLUX and the transformers after it take: packed tokens, flow times, positions, the conditioning as it is."""
    positions = joint_positions(given.layout, given.latents)
    return {"hidden_states": pack(given.latents), "timestep": given.t, **positions, **given.tensors}


def named(*names: str | None) -> Encode:
    """Encode by the pipeline's own `encode_prompt` and name what it returns, in order; None is left out."""

    def encode(pipeline: Any, prompts: list[str], length: int, device: torch.device) -> dict[str, Tensor]:
        outputs = pipeline.encode_prompt(prompts, device=device, max_sequence_length=length)
        return {name: output for name, output in zip(names, outputs, strict=True) if name is not None}

    return encode


def text_length(tensors: Mapping[str, Tensor]) -> int:
    """The usual: every prompt of a pass has as many text tokens as the padded tensor."""
    return tensors["encoder_hidden_states"].shape[1]


@dataclass(frozen=True)
class Family:
    """A kind of diffusers pipeline as `DiffusersModel` reads it.

    Args:
        name: What messages call it.
        pipelines: diffusers' class names, as in `_class_name` of a model_index.json.
        blocks: The transformer's layers, in execution order.
        text: Text tokens of every prompt when none are given, and the most.
        guidance: From the pipeline to how it is guided: `embedded`, `classifier_free` or what the checkpoint says.
        readers: From (pipeline, text tokens) to the text encoders' ways of reading a prompt.
        encode: Names tensors as the transformer does; under classifier-free guidance those of the negative prompt too,
            with `negative_` in front.
        inputs: The keyword arguments of one call of the transformer.
        unpack: From what the transformer returns and the rows of image tokens to velocities, noise - image.
        text_within: A tokenizer of the pipeline whose own limit the default of text tokens stays within.
        order: The streams in the joint sequence of attention, as far as they are known.
        stacked: The branches in the order in which the pipeline stacks them along the batch; none: a pass each.
        combine: From (conditional, unconditional, scale of every row) to the guided velocities, float32.
        times: From (scheduler, steps, image tokens) to the pipeline's own times.
        vae: Between pictures and latents.
        text_tokens: Text length of a pass, from its tensors.
        sizes: Measures of a pipeline.
        refines: Image tokens see one another before the first layer, so that all latents count even where only some
            tokens are computed in the layers.
        refer: Encodes reference pictures; None where the model takes none.
        call: Reads the pipeline's own calls of its transformer, one branch each; None where it cannot be told yet.
    """

    name: str
    pipelines: tuple[str, ...]
    blocks: tuple[Blocks, ...]
    text: tuple[int, int]
    guidance: Callable[[Any], Guided]
    readers: Callable[[Any, int], Sequence[Reader]]
    encode: Encode
    inputs: Callable[[Pass], Mapping[str, Any]]
    unpack: Callable[[Any, int], Latents] = unpack
    text_within: str | None = None
    order: tuple[Stream, ...] = ("text", "image")
    stacked: tuple[Branch, ...] = ()
    combine: Callable[[Latents, Latents, Float[Tensor, " batch"]], Latents] = guide
    times: Callable[[Any, int, int], TimeGrid] = shifted_by_size
    vae: Autoencoder = VAE
    text_tokens: Callable[[Mapping[str, Tensor]], int] = text_length
    sizes: Callable[[Any], Sizes] = packed_sizes
    refines: bool = False
    refer: Refer | None = None
    call: Reading | None = None

    def layout(self, rows: int, columns: int, text_tokens: int) -> TokenLayout:
        """Return where the tokens of a pass are: streams follow one another in `order`."""
        lengths: dict[Stream, int] = {"text": text_tokens, "image": rows * columns}
        joint_start: dict[Stream, int] = {}
        for stream in self.order:
            joint_start[stream] = sum(lengths[before] for before in joint_start)
        image_start: dict[Kind, int] = {}  # a double layer projects its image stream alone
        for blocks in self.blocks:
            image_start[blocks.kind] = 0 if blocks.kind == "double" else joint_start["image"]
        return TokenLayout(rows, columns, text_tokens, image_start, joint_start)

    def passes(self, branches: Sequence[Branch]) -> list[tuple[Branch, ...]]:
        """Return the branches of every call of the transformer."""
        if self.stacked:
            return [tuple(branch for branch in self.stacked if branch in branches)]
        return [(branch,) for branch in branches]
