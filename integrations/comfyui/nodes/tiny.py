"""The library's bundled model as ComfyUI's MODEL, CLIP and VAE: to try the pack without any download."""

import torch
from comfy_api.latest import io

from .types import CATEGORY


class BundledModel(io.ComfyNode):
    """A small FLUX in ComfyUI's own model class."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StableFlowBundledModel",
            display_name="Bundled model (Stable Flow)",
            category=CATEGORY,
            description="A toy FLUX that draws 64 x 64 dogs, cats and birds, on a CPU, in seconds. It knows 43 words.",
            inputs=[],
            outputs=[io.Model.Output(), io.Clip.Output(), io.Vae.Output()],
            is_experimental=True,
        )

    @classmethod
    @torch.no_grad()
    def execute(cls) -> io.NodeOutput:
        from ..tiny_flux import as_clip, as_model, as_vae, load

        library = load()
        return io.NodeOutput(as_model(library.pipeline.transformer), as_clip(library), as_vae(library))
