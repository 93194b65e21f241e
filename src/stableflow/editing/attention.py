"""What a point of the picture attends to, in the source's passes and in those of its edits."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from stableflow.editing.methods.stable_flow import StableFlow
from stableflow.editing.path import replay_solver
from stableflow.editing.result import EditResult
from stableflow.editing.source import Source
from stableflow.errors import InputError, InterventionError
from stableflow.files import write_tensors, write_text_atomic
from stableflow.flow.integrate import Callback, integrate
from stableflow.interventions import AttentionMean, CaptureAttention
from stableflow.interventions.blend import WHOLE_FLOW
from stableflow.models.base import Conditioning, FlowModel, ShowsAttention, Word
from stableflow.vital.presets import resolve_layers


@dataclass(frozen=True, eq=False)
class PointAttention:
    """Attention of every point, averaged over layers, steps and heads; image, text and rest sum to 1.

    Args:
        image: On each image token.
        text: On each word, its tokens summed.
        rest: On text tokens that belong to no word: the end of the prompt and its padding.
    """

    image: Float[Tensor, "points token_rows token_columns"]
    text: Float[Tensor, "points words"]
    rest: Float[Tensor, " points"]

    @property
    def image_sum(self) -> Float[Tensor, " points"]:
        """On all image tokens together."""
        return self.image.sum((1, 2))


@dataclass(frozen=True, eq=False)
class PromptAttention:
    """Attention of the points while one picture was drawn; steps and heads have length 1 where they were averaged.

    Args:
        prompt, words: What was drawn, and its words in order.
        layers, times: Of the first two dimensions; no times where steps were averaged.
        image: On each image token. In layers with injection these are the source's image tokens.
        text: On each word, its tokens summed.
        rest: On text tokens that belong to no word.
    """

    prompt: str
    words: tuple[str, ...]
    layers: tuple[int, ...]
    times: tuple[float, ...]
    image: Float[Tensor, "layers steps heads points token_rows token_columns"]
    text: Float[Tensor, "layers steps heads points words"]
    rest: Float[Tensor, "layers steps heads points"]

    def mean(self, layers: Sequence[int] | None = None) -> PointAttention:
        """Average over these layers (all that were captured when None), steps and heads.

        Raises:
            InputError: A layer was not captured, or none is given.
        """
        layers = self.layers if layers is None else layers
        missing = [layer for layer in layers if layer not in self.layers]
        if missing or not layers:
            raise InputError(
                f"Attention was captured in layers {list(self.layers)}, not in {missing or 'an empty set'}."
            )
        chosen = [self.layers.index(layer) for layer in layers]
        return PointAttention(*(values[chosen].mean((0, 1, 2)) for values in (self.image, self.text, self.rest)))


@dataclass(frozen=True, eq=False)
class AttentionResult:
    """Attention of chosen points in a source and its edits.

    Args:
        points: Pixels (x, y).
        injected: Layers in which keys and values were injected while the edits were drawn.
        source, edits: One a prompt.
        source_image, images: The pictures that were drawn.
        recipe: Everything that made it, as JSON values.
    """

    points: tuple[tuple[int, int], ...]
    injected: tuple[int, ...]
    source: PromptAttention
    edits: tuple[PromptAttention, ...]
    source_image: Float[Tensor, "1 3 height width"]
    images: Float[Tensor, "edits 3 height width"]
    recipe: dict[str, Any]

    def save(self, folder: str | Path) -> list[Path]:
        """Write attention.safetensors (every array) and attention.json (words, recipe, and sums a layer and point)."""
        folder = Path(folder)
        passes = {"source": self.source} | {f"edit_{i}": edit for i, edit in enumerate(self.edits, start=1)}
        arrays = {
            f"{name}/{part}": getattr(attention, part).contiguous()
            for name, attention in passes.items()
            for part in ("image", "text", "rest")
        }
        write_tensors(folder / "attention.safetensors", arrays)
        content = {
            "points": [list(point) for point in self.points],
            "injected": list(self.injected),
            "passes": {name: _listing(attention) for name, attention in passes.items()},
            "recipe": self.recipe,
        }
        write_text_atomic(folder / "attention.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        return [folder / "attention.safetensors", folder / "attention.json"]


def attention(
    editor: StableFlow,
    source: Source,
    prompts: str | Sequence[str] | Conditioning,
    *,
    points: Sequence[tuple[int, int]],
    layers: Sequence[int] | None = None,
    t_window: tuple[float, float] = WHOLE_FLOW,
    per_step: bool = False,
    per_head: bool = False,
    inject_layers: str | Sequence[int] | None = None,
    inject_window: tuple[float, float] = WHOLE_FLOW,
    weight: float = 1.0,
    guidance_scale: float | Sequence[float] | None = None,
    callback: Callback | None = None,
) -> AttentionResult:
    """Edit a source as `editor.edit` does, and tell what the points attend to: each image token and each word.

    Costs one more row than the edit itself, since the source's passes are run again to be watched. No attention map is
    ever kept whole; see `AttentionMean` for the memory.

    Args:
        editor, source, prompts: As for `editor.edit`; drawn and inverted sources alike.
        points: Pixels (x, y) of the source's picture, from its top left corner.
        layers: Where to look; every layer when None.
        t_window: Flow times (low, high) at which to look; 1 is noise.
        per_step, per_head: Keep steps or heads apart.
        inject_layers, inject_window, weight, guidance_scale: `layers`, `t_window`, `weight` and `guidance_scale` of
            `editor.edit`; [] injects nothing.
        callback: Told of every finished step of the edits.

    Raises:
        InputError: A point lies outside the picture, or a setting is out of range.
        InterventionError: The model's family cannot show its attention.

    Example:
        >>> editor = StableFlow(load("tiny"))
        >>> source = editor.generate("a dog standing on the grass", seed=1)
        >>> maps = attention(editor, source, "a dog sitting on the grass", points=[(32, 32)])
        >>> maps.edits[0].mean(editor.layers).image_sum

    Source: Avrahami et al., "Stable Flow" (CVPR 2025), arXiv:2411.14430, figure 6.
    """
    model = _checked_model(editor.model)
    layers = range(len(model.layers)) if layers is None else resolve_layers(model, layers)
    kept = AttentionMean(per_step=per_step, per_head=per_head), AttentionMean(per_step=per_step, per_head=per_head)
    size = source.fingerprint.height, source.fingerprint.width
    watch_source, watch_edits = (CaptureAttention(layers, points, size, keep, t_window) for keep in kept)
    injecting = editor.having(
        guidance_scale=guidance_scale,
        layers=editor.layers if inject_layers is None else inject_layers,
        t_window=inject_window,
        weight=weight,
    )
    with model.attach(watch_edits):
        result = injecting.edit(source, prompts, callback=callback)
    with model.attach(watch_source):
        _replay(model, result.source)
    watching = {"layers": list(layers), "t_window": list(t_window), "points": [list(point) for point in points]}
    return _attention_of(model, points, kept, result, watching)


def _attention_of(
    model: ShowsAttention,
    points: Sequence[tuple[int, int]],
    kept: tuple[AttentionMean, AttentionMean],
    result: EditResult,
    watching: dict[str, Any],
) -> AttentionResult:
    """Sort what was captured in the source's passes and in the edits' by prompt."""
    edits = kept[1].mean()[:, :, -len(result.prompts) :]  # without the source's row, where it shares the batch
    return AttentionResult(
        points=tuple(points),
        injected=tuple(result.recipe["layers"]),
        source=_of_prompt(model, result.source.fingerprint.prompt, kept[0], kept[0].mean()[:, :, 0]),
        edits=tuple(_of_prompt(model, prompt, kept[1], edits[:, :, row]) for row, prompt in enumerate(result.prompts)),
        source_image=result.source_image,
        images=result.images,
        recipe=result.recipe | {"attention": watching},
    )


def _checked_model(model: FlowModel) -> ShowsAttention:
    if not isinstance(model, ShowsAttention):
        raise InterventionError(
            f"{model.name!r} cannot show its attention yet: the `blocks` of its family in stableflow/models have no "
            "`watch`; see docs/extending.md."
        )
    return model


def _replay(model: FlowModel, source: Source) -> None:
    """Run the source's own passes again."""
    source = source.to(model.device)
    guidance = source.fingerprint.guidance_scale

    def velocity(latents: Tensor, t: float) -> Tensor:
        return model.velocity(latents, t, source.conditioning, guidance_scale=guidance)

    integrate(velocity, source.noise, source.grid, replay_solver(source.fingerprint, source.path))


def _of_prompt(
    model: ShowsAttention,
    prompt: str,
    kept: AttentionMean,
    rows: Float[Tensor, "layers steps points heads tokens"],
) -> PromptAttention:
    """Divide joint tokens into the image's grid, words and the rest."""
    assert kept.layout is not None
    layout, words = kept.layout, model.words(prompt)
    rows = rearrange(rows, "layers steps points heads tokens -> layers steps heads points tokens")
    image, text = rows[..., layout.joint_span("image")], rows[..., layout.joint_span("text")]
    return PromptAttention(
        prompt=prompt,
        words=tuple(word.text for word in words),
        layers=kept.layers,
        times=kept.times,
        image=image.unflatten(-1, (layout.image_rows, layout.image_columns)),
        text=sum_words(text, words),
        rest=text.sum(-1) - sum_words(text, words).sum(-1),
    )


def sum_words(text: Float[Tensor, "*any text_tokens"], words: Sequence[Word]) -> Float[Tensor, "*any words"]:
    """Return the attention on each word: the sum over its tokens."""
    if not words:
        return text[..., :0]
    return torch.stack([text[..., list(word.tokens)].sum(-1) for word in words], dim=-1)


def _listing(attention: PromptAttention) -> dict[str, Any]:
    """The sums of every layer and point, as JSON values."""
    means = {layer: attention.mean([layer]) for layer in attention.layers}
    return {
        "prompt": attention.prompt,
        "words": list(attention.words),
        "layers": {
            str(layer): {
                "image": _rounded(mean.image_sum),
                "words": _rounded(mean.text),
                "rest": _rounded(mean.rest),
            }
            for layer, mean in means.items()
        },
    }


def _rounded(values: Tensor) -> list[Any]:
    return (values.double() * 1e6).round().div(1e6).tolist()
