"""A mask found by the model: where a word of the source's prompt shows."""

import re

import torch
from comfy_api.latest import io

from stableflow.errors import UnknownNameError

from .. import host
from ..engine.finding import LOOK_AT, region_of
from .sources import with_guidance
from .types import CATEGORY, SourceType


class RegionFromWord(io.ComfyNode):
    """Where the model would draw something else if the word were left out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StableFlowRegionFromWord",
            display_name="Region from word (Stable Flow)",
            category=CATEGORY,
            description="Asks the model with and without the word at three times, and cuts the difference in two.",
            inputs=[
                io.Model.Input("model"),
                io.Clip.Input("clip"),
                SourceType.Input("source"),
                io.String.Input("prompt", multiline=True, tooltip="What the source shows."),
                io.String.Input("word", default="dog", tooltip="One or more words of the prompt."),
                io.Float.Input("guidance", default=1.0, min=0.0, max=100.0, step=0.1),
                io.Int.Input("grow", default=0, min=0, max=64, tooltip="Tokens to add around it."),
            ],
            outputs=[io.Mask.Output("mask")],
        )  # fmt: skip

    @classmethod
    def execute(cls, model, clip, source, prompt, word, guidance, grow=0) -> io.NodeOutput:
        both = [with_guidance(encoded(clip, text), guidance) for text in (prompt, without(prompt, word))]
        clean, differences = source.picture / source.nudge, []
        generator = torch.Generator("cpu").manual_seed(0)
        for t in LOOK_AT:
            noisy = (1 - t) * clean + t * torch.randn(clean.shape, generator=generator)
            one, other = (host.velocity(model, conditioning, noisy, t) for conditioning in both)
            differences.append((other - one).abs().mean(1))
        return io.NodeOutput(host.in_pixels(model, region_of(sum(differences), host.patch_of(model), grow)))


def without(prompt: str, words: str) -> str:
    """Return a prompt without some of its words.

    Raises:
        UnknownNameError: It has no such word.
    """
    known, wanted = re.findall(r"\w+", prompt.lower()), re.findall(r"\w+", words.lower())
    missing = [word for word in wanted if word not in known]
    if missing or not wanted:
        raise UnknownNameError(f"The prompt {prompt!r} has no word {(missing or [words])[0]!r}.")
    return " ".join(re.sub(rf"\b({'|'.join(wanted)})\b", "", prompt, flags=re.IGNORECASE).split())


def encoded(clip, text: str):
    """Return what CLIP Text Encode returns."""
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))
