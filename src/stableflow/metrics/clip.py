"""CLIP_img, CLIP_txt and CLIP_dir: is the edit near the source, near its prompt, and did it move as the words did?"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stableflow.errors import LoadError
from stableflow.metrics.backbone import WHAT_TO_GIVE, Backbone, load_backbone
from stableflow.metrics.card import METRICS, Mask, MetricCard, PromptPairs, checked_prompts
from stableflow.metrics.inputs import blackened, check_pair, mask_weights, nothing_to_nan
from stableflow.types import Images

UNUSED = ("text_model.embeddings.position_ids", "vision_model.embeddings.position_ids", "logit_scale")
EXAMPLE = "openai/clip-vit-large-patch14"
HIGHEST_ID_ENDS = 2  # the end id in configs of old checkpoints, where the end is found as the highest id instead
MASKING = "black outside the mask, in both pictures"
PREPROCESSING = "resize, centre crop and normalisation of the backbone's preprocessor_config.json"


@dataclass(frozen=True, eq=False)
class Clip:
    """A CLIP model; embeddings have unit length.

    Example:
        >>> clip = Clip.load("openai/clip-vit-large-patch14")
        >>> ClipText(clip)(sources, edits, prompts=[("a dog", "a cat")])
    """

    backbone: Backbone
    tokenizer: Any

    @staticmethod
    def load(name: str | Path, *, device: str = "cpu", offline: bool = False) -> "Clip":
        """Load from a local folder or a hub id.

        Raises:
            LoadError: Files or weights are missing, or the hub cannot be reached.
        """
        from transformers import CLIPModel

        backbone = load_backbone(CLIPModel, name, example=EXAMPLE, device=device, offline=offline, unused=UNUSED)
        return Clip(backbone, _tokenizer(name, backbone.model.config.text_config, offline))

    @torch.no_grad()
    def embed_images(self, images: Images) -> Float[Tensor, "batch dim"]:
        """Return embeddings of pictures in [0, 1] of any size."""
        model = self.backbone.model
        pixels = self.backbone.preprocessing(images.to(self.backbone.device, torch.float32))
        pooled = model.vision_model(pixel_values=pixels).pooler_output
        return F.normalize(model.visual_projection(pooled), dim=-1).cpu()

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "batch dim"]:
        """Return embeddings of texts; warns where one is cut off."""
        model = self.backbone.model
        limit = model.config.text_config.max_position_embeddings
        tokens = self.tokenizer(list(texts), padding=True, truncation=True, max_length=limit, return_tensors="pt")
        self._check(texts, tokens.input_ids, limit)
        tokens = tokens.to(self.backbone.device)
        pooled = model.text_model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).pooler_output
        return F.normalize(model.text_projection(pooled), dim=-1).cpu()

    def _check(self, texts: Sequence[str], ids: Tensor, limit: int) -> None:
        """CLIP reads a text at its end token: without one, it would silently read another place."""
        end = self.backbone.model.config.text_config.eos_token_id
        found = ids.amax(1) == self.tokenizer.eos_token_id if end == HIGHEST_ID_ENDS else (ids == end).any(1)
        if not bool(found.all()):
            raise LoadError(
                f"The tokenizer of {self.backbone.name} does not end texts as its model expects (eos_token_id {end} in "
                f"config.json, {self.tokenizer.eos_token_id} in the tokenizer). Make tokenizer and config agree."
            )
        for text in texts:
            length = len(self.tokenizer(text, truncation=False, verbose=False).input_ids)
            if length > limit:
                warnings.warn(f"CLIP reads {limit} tokens; {text!r} has {length} and is cut off.", stacklevel=4)


def _tokenizer(name: str | Path, config: Any, offline: bool) -> Any:
    """The tokenizer of a folder or hub id; a bare tokenizer.json will do, its end and padding named by the config."""
    folder = Path(name).expanduser()
    try:
        if folder.is_dir() and not (folder / "tokenizer_config.json").is_file():
            from transformers import PreTrainedTokenizerFast

            tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
            tokenizer.eos_token = tokenizer.convert_ids_to_tokens(config.eos_token_id)
            tokenizer.pad_token = tokenizer.convert_ids_to_tokens(config.pad_token_id)
            return tokenizer
        from transformers import AutoTokenizer

        place = str(folder) if folder.is_dir() else str(name)
        return AutoTokenizer.from_pretrained(place, local_files_only=offline or folder.is_dir())
    except Exception as error:  # tokenizers raises no class of its own
        raise LoadError(f"{name} has no readable tokenizer. {WHAT_TO_GIVE.format(example=EXAMPLE)}") from error


@METRICS.register("clip_img")
@dataclass(frozen=True, eq=False)
class ClipImage:
    """CLIP_img = cos(embedding of the source, of the edit)."""

    clip: Clip
    facts: ClassVar = MetricCard("clip_img", -1.0, 1.0, True, PREPROCESSING, MASKING)

    @property
    def card(self) -> MetricCard:
        return self.clip.backbone.on(self.facts)

    def __call__(
        self, source: Images, edit: Images, *, prompts: PromptPairs | None = None, mask: Mask | None = None
    ) -> Float[Tensor, " batch"]:
        check_pair(source, edit)
        weights = mask_weights(mask, source)
        before, after = (self.clip.embed_images(blackened(images, weights)) for images in (source, edit))
        return nothing_to_nan((before * after).sum(-1), weights)


@METRICS.register("clip_txt")
@dataclass(frozen=True, eq=False)
class ClipText:
    """CLIP_txt = cos(embedding of the edit, of the edited prompt)."""

    clip: Clip
    facts: ClassVar = MetricCard("clip_txt", -1.0, 1.0, True, PREPROCESSING, MASKING, needs_prompts=True)

    @property
    def card(self) -> MetricCard:
        return self.clip.backbone.on(self.facts)

    def __call__(
        self, source: Images, edit: Images, *, prompts: PromptPairs | None = None, mask: Mask | None = None
    ) -> Float[Tensor, " batch"]:
        check_pair(source, edit)
        weights = mask_weights(mask, edit)
        _, edited = checked_prompts("clip_txt", prompts, len(edit))
        cosine = (self.clip.embed_images(blackened(edit, weights)) * self.clip.embed_texts(edited)).sum(-1)
        return nothing_to_nan(cosine, weights)


@METRICS.register("clip_dir")
@dataclass(frozen=True, eq=False)
class ClipDirection:
    """CLIP_dir = cos(edit - source, edited prompt - source prompt), of embeddings of unit length.

    0 where both pictures, or both prompts, are the same: nothing moved, so nothing moved as told.

    Source: Gal et al., "StyleGAN-NADA" (2021), arXiv:2108.00946, the directional similarity.
    """

    clip: Clip
    facts: ClassVar = MetricCard("clip_dir", -1.0, 1.0, True, PREPROCESSING, MASKING, needs_prompts=True)

    @property
    def card(self) -> MetricCard:
        return self.clip.backbone.on(self.facts)

    def __call__(
        self, source: Images, edit: Images, *, prompts: PromptPairs | None = None, mask: Mask | None = None
    ) -> Float[Tensor, " batch"]:
        check_pair(source, edit)
        weights = mask_weights(mask, source)
        told, wanted = checked_prompts("clip_dir", prompts, len(edit))
        before, after = (self.clip.embed_images(blackened(images, weights)) for images in (source, edit))
        words = self.clip.embed_texts([*told, *wanted])
        direction = words[len(told) :] - words[: len(told)]
        return nothing_to_nan(F.cosine_similarity(after - before, direction, dim=-1), weights)
