"""Nodes that make a source: from a picture, or from noise."""

from typing import Any

import torch
from comfy_api.latest import io

from stableflow.flow.time_grid import TimeGrid

from .. import host
from ..engine.inverting import Inverting, of_inversion, of_sampling
from ..engine.recording import Recorder
from .types import CATEGORY, HoldType, SourceType

KEEP_HINT = (
    "Optional: keys and values of these layers are kept in main memory, so that edits need not run the source again. "
    "For FLUX.1 at 1024x1024 that is 50 MB a layer and step."
)
SIGMAS_HINT = "Optional: times from noise to picture, instead of scheduler and steps."


def with_guidance(conditioning: Any, guidance: float) -> Any:
    """Return a conditioning with this embedded guidance scale, which models that take none ignore."""
    return [[tokens, {**rest, "guidance": guidance}] for tokens, rest in conditioning]


class Invert(io.ComfyNode):
    """A picture's way to its noise, retraced to rounding by edits."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StableFlowInvert",
            display_name="Invert (Stable Flow)",
            category=CATEGORY,
            description="Finds the noise of a picture and the way to it. Edits begin there and follow it.",
            inputs=[
                io.Model.Input("model"),
                io.Conditioning.Input("positive", tooltip="What the picture shows."),
                io.Latent.Input("latent", tooltip="The picture, from VAE Encode."),
                io.Int.Input("steps", default=50, min=2, max=1000, tooltip="The edit's sampler needs the same."),
                io.Combo.Input("scheduler", options=list(host.SCHEDULERS), default="simple"),
                io.Float.Input("guidance", default=1.0, min=0.0, max=100.0, step=0.1, tooltip="Of the inversion; 1 is the paper's. Edits take their own from FluxGuidance, about 3."),
                io.Float.Input("nudge", default=1.15, min=0.5, max=2.0, step=0.01, tooltip="A factor on the latents, undone at the end. Larger frees the edit and costs fidelity; 1 changes nothing."),
                io.Int.Input("iterations", default=1, min=1, max=20, tooltip="Of the fixed point in each step; one is the paper's."),
                io.Conditioning.Input("negative", optional=True, tooltip="Only for edits with cfg above 1."),
                HoldType.Input("keep", optional=True, tooltip=KEEP_HINT),
                io.Sigmas.Input("sigmas", optional=True, tooltip=SIGMAS_HINT),
            ],
            outputs=[SourceType.Output("source"), io.Sigmas.Output("sigmas_out", display_name="sigmas")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        model,
        positive,
        latent,
        steps,
        scheduler,
        guidance,
        nudge,
        iterations,
        negative=None,
        keep=None,
        sigmas=None,
    ) -> io.NodeOutput:
        sigmas = host.sigmas_of(model, scheduler, steps) if sigmas is None else sigmas.cpu()
        grid, samples = TimeGrid(tuple(sigmas.tolist())), one_row(latent["samples"])
        recorder = Recorder(host.numbering_of(model), host.patch_of(model), layers_of(keep), last=True)
        walk = Inverting(grid, nudge, iterations)
        positive = with_guidance(positive, guidance)
        host.run(
            host.listened(model, recorder, both=negative is not None), walk, sigmas.flip(0), positive,
            positive if negative is None else with_guidance(negative, guidance), 1.0,
            noise=torch.zeros_like(samples), latent=samples,
        )  # fmt: skip
        assert walk.found is not None
        return io.NodeOutput(of_inversion(walk.found, recorder, grid, nudge), sigmas)


class SourceFromSampler(io.ComfyNode):
    """A drawn picture and all that its edits need of it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StableFlowSource",
            display_name="Source from sampler (Stable Flow)",
            category=CATEGORY,
            description="Draws a picture as KSampler does, and keeps its way from noise for edits.",
            inputs=[
                io.Model.Input("model"),
                io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True),
                io.Int.Input("steps", default=20, min=1, max=1000),
                io.Float.Input("cfg", default=1.0, min=0.0, max=100.0, step=0.1),
                io.Combo.Input("sampler_name", options=list(host.SAMPLERS), default="euler"),
                io.Combo.Input("scheduler", options=list(host.SCHEDULERS), default="simple"),
                io.Conditioning.Input("positive"),
                io.Latent.Input("latent", tooltip="An empty latent of the size to draw."),
                io.Conditioning.Input("negative", optional=True, tooltip="Only where cfg of the source or of an edit is above 1."),
                HoldType.Input("keep", optional=True, tooltip=KEEP_HINT),
                io.Sigmas.Input("sigmas", optional=True, tooltip=SIGMAS_HINT),
            ],
            outputs=[SourceType.Output("source"), io.Latent.Output("latent_out", display_name="latent"), io.Sigmas.Output("sigmas_out", display_name="sigmas")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, model, seed, steps, cfg, sampler_name, scheduler, positive, latent, negative=None, keep=None, sigmas=None
    ) -> io.NodeOutput:
        sigmas = host.sigmas_of(model, scheduler, steps) if sigmas is None else sigmas.cpu()
        empty = one_row(host.empty_like_model(model, latent))
        recorder = Recorder(host.numbering_of(model), host.patch_of(model), layers_of(keep))
        samples = host.run(
            host.listened(model, recorder, both=negative is not None), sampler_name, sigmas, positive,
            positive if negative is None else negative, cfg, noise=host.noise_for(empty, seed), latent=empty, seed=seed,
        )  # fmt: skip
        source = of_sampling(host.into_model(model, samples), recorder, sigmas)
        return io.NodeOutput(source, {"samples": samples}, sigmas)


def layers_of(holds: Any) -> tuple[int, ...]:
    """Return the layers that something is held in."""
    return tuple(sorted({layer for hold in holds or () for layer in hold.layers}))


def one_row(samples: torch.Tensor) -> torch.Tensor:
    """Return the first picture of a batch: a source is one picture."""
    return samples[:1]
