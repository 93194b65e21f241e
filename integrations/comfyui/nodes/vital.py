"""Which layers are vital for a model: measured by leaving each out."""

import json

import torch
import torch.nn.functional as F
from comfy_api.latest import io

from stableflow.vital.choice import choose, parse_choice

from .. import host
from ..engine.chart import draw_bars
from ..engine.holds import Hold
from .types import CATEGORY, HoldType


class MeasureVital(io.ComfyNode):
    """The paper's measurement on the loaded model, small: as many pictures as seeds."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StableFlowMeasureVital",
            display_name="Measure vital layers (Stable Flow)",
            category=CATEGORY,
            description="Draws each seed once whole and once without each layer: (layers + 1) x seeds pictures. The less alike, the more vital.",
            inputs=[
                io.Model.Input("model"),
                io.Vae.Input("vae"),
                io.Conditioning.Input("positive"),
                io.Latent.Input("latent"),
                io.Int.Input("first_seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF),
                io.Int.Input("seeds", default=2, min=1, max=256),
                io.Int.Input("steps", default=15, min=1, max=200),
                io.String.Input("choice", default="gap", tooltip="gap, top:9 or threshold:0.2."),
                io.ClipVision.Input("clip_vision", optional=True, tooltip="DINOv2 is the paper's; without one, pixels are compared."),
            ],
            outputs=[HoldType.Output("hold"), io.Image.Output("chart"), io.String.Output("vitality")],
        )  # fmt: skip

    @classmethod
    def execute(cls, model, vae, positive, latent, first_seed, seeds, steps, choice, clip_vision=None) -> io.NodeOutput:
        rule, numbering = parse_choice(choice), host.numbering_of(model)
        variants = [model, *(host.bypassed(model, numbering.block(layer)) for layer in range(numbering.total))]
        scores = torch.zeros(numbering.total)
        for seed in range(first_seed, first_seed + seeds):
            seen = [_look(_draw(variant, vae, positive, latent, steps, seed), clip_vision) for variant in variants]
            scores += torch.tensor([1 - float(F.cosine_similarity(seen[0], other, dim=-1)) for other in seen[1:]])
        vitality = scores / seeds
        chosen = choose(vitality, rule)
        report = {"layers": list(chosen), "vitality": [round(float(score), 4) for score in vitality], "choice": choice}
        report |= {"seeds": seeds, "similarity": "pixels" if clip_vision is None else "clip_vision"}
        return io.NodeOutput((Hold(chosen, 1.0, "kept"),), draw_bars(vitality, chosen), json.dumps(report))


def _draw(model, vae, positive, latent, steps: int, seed: int) -> torch.Tensor:
    empty = host.empty_like_model(model, latent)[:1]
    sigmas, noise = host.sigmas_of(model, "simple", steps), host.noise_for(empty, seed)
    return vae.decode(host.run(model, "euler", sigmas, positive, positive, 1.0, noise=noise, latent=empty, seed=seed))


def _look(picture: torch.Tensor, clip_vision) -> torch.Tensor:
    """Return what is compared by its cosine: an embedding, or pixels around mid grey."""
    if clip_vision is None:
        return picture.flatten()[None] - 0.5
    return clip_vision.encode_image(picture)["image_embeds"].flatten(1).float().cpu()
