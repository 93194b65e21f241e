"""A small CLIP: pictures and captions in one space, trained by contrast, also with captions wrong in one word."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from stableflow.scenes import Scene, attributes, caption, edit
from stableflow.training.classifier import degrade
from stableflow.training.data import SceneData
from stableflow.training.export import export_encoder
from stableflow.training.loop import draw_index, fit
from stableflow.training.parallel import World
from stableflow.training.start import adopt
from stableflow.training.tokens import LENGTHS, make_tokenizer, tokenize, words

LARGEST_LOGIT_SCALE = 4.6052  # ln 100, as CLIP caps it


@dataclass(frozen=True)
class ClipSettings:
    """Shape and training of the CLIP.

    Args:
        full_share: Of the captions that name everything; the others leave attributes out, as the flow's do.
        noise: The largest deviation of the noise on the pictures.
    """

    width: int = 128
    layers: int = 4
    patch: int = 8
    num_steps: int = 1700
    batch: int = 160
    peak: float = 1e-3
    full_share: float = 0.7
    noise: float = 0.06
    seed: int = 4


def make_clip(settings: ClipSettings, size: int, layers: int = 2) -> Any:
    shape = {
        "hidden_size": settings.width,
        "intermediate_size": 4 * settings.width,
        "num_hidden_layers": settings.layers,
        "num_attention_heads": 4,
        "projection_dim": settings.width,
    }
    text = {
        "vocab_size": len(words(layers)),
        "max_position_embeddings": LENGTHS[layers],
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": 2,
    }
    return CLIPModel(
        CLIPConfig(
            text_config={**shape, **text},
            vision_config={**shape, "image_size": size, "patch_size": settings.patch},
            projection_dim=settings.width,
        )
    )


def train_clip(
    folder: Path, data: SceneData, settings: ClipSettings, world: World, *, start: Path | None = None
) -> Any:
    """Train or resume in one process; writes folder / "clip" in transformers' layout, float16.

    Args:
        start: A CLIP's folder to go on from.
    """
    size, layers = data.images.shape[1], data.layers
    torch.manual_seed(settings.seed)
    model = make_clip(settings, size, layers)
    if start is not None:
        adopt(model, start, tokenizer=start, layers=layers)
    model = model.to(world.device).train()
    scenes = data.scenes()
    full = torch.tensor([tokenize(caption(scene), layers) for scene in scenes])
    wrong = torch.tensor([tokenize(caption(_with_one_other_value(scene, layers)), layers) for scene in scenes])

    def loss_of(step: int, generator: torch.Generator) -> Tensor:
        with torch.no_grad():
            model.logit_scale.clamp_(max=LARGEST_LOGIT_SCALE)
        index = draw_index(len(data.images), settings.batch, generator)
        which = torch.randint(data.tokens.shape[1], index.shape, generator=generator)
        told_all = torch.rand(index.shape, generator=generator) < settings.full_share
        captions = torch.where(told_all[:, None], full[index], data.tokens[index, which]).to(world.device)
        images = degrade(data.pixels(index) / 2 + 0.5, settings.noise, step, generator) * 2 - 1
        with torch.autocast(world.device.type, torch.bfloat16):
            texts = torch.cat([captions, wrong[index].to(world.device)])
            output = model(input_ids=texts, pixel_values=images.to(world.device))
        return contrastive_loss(output.logits_per_image.float(), texts)

    fit(
        "clip",
        model,
        loss_of,
        num_steps=settings.num_steps,
        peak=settings.peak,
        seed=settings.seed,
        folder=folder,
        world=world,
    )
    tokenizer = make_tokenizer(layers)
    export_encoder(model.eval(), folder / "clip", size=size, processor="CLIPImageProcessor", tokenizer=tokenizer)
    return model.float()


def _with_one_other_value(scene: Scene, layers: int) -> Scene:
    """The scene with one captioned attribute changed: the caption that is hardest to tell from its own."""
    rng = random.Random(f"wrong {scene.seed}")
    name, values = rng.choice(list(attributes(layers).items()))
    return edit(scene, **{name: rng.choice([value for value in values if value != getattr(scene, name)])})


def contrastive_loss(logits: Float[Tensor, "pictures texts"], texts: Int[Tensor, "texts tokens"]) -> Tensor:
    """Symmetric cross-entropy of every picture against every text; the first texts are the pictures' own captions.

    Equal captions are all right. Texts beyond the pictures belong to none: they are wrong for every picture.

    Source: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (ICML 2021),
    arXiv:2103.00020, with the targets shared among equal captions, which a small world has many of, and captions that
    are wrong in one word, as in Yuksekgonul et al., "When and why vision-language models behave like bags-of-words"
    (ICLR 2023), arXiv:2210.01936.
    """
    pictures = len(logits)
    same = (texts[:pictures, None] == texts[None]).all(-1).float()
    own = same[:, :pictures]
    by_picture = F.cross_entropy(logits, same / same.sum(1, keepdim=True))
    by_text = F.cross_entropy(logits[:, :pictures].T, own / own.sum(1, keepdim=True))
    return (by_picture + by_text) / 2


@torch.no_grad()
def zero_shot_accuracy(model: Any, data: SceneData) -> dict[str, float]:
    """Return how often the full caption with the right value beats those with the other values, on held-out renders."""
    scenes = data.scenes(validation=True)
    images = data.pixels(torch.arange(len(scenes)))
    pictures = torch.cat([_image_features(model, part) for part in images.split(200)])
    return {
        name: sum(_reads(model, picture, scene, name, data.layers) for picture, scene in zip(pictures, scenes))
        / len(scenes)
        for name in attributes(data.layers)
    }


def _reads(model: Any, picture: Tensor, scene: Scene, name: str, layers: int) -> bool:
    values = attributes(layers)[name]
    texts = torch.tensor([tokenize(caption(edit(scene, **{name: value})), layers) for value in values])
    features = F.normalize(model.text_projection(model.text_model(texts).pooler_output))
    return values[int((features @ picture).argmax())] == getattr(scene, name)


def _image_features(model: Any, images: Tensor) -> Tensor:
    return F.normalize(model.visual_projection(model.vision_model(images).pooler_output))
