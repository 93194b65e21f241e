"""FLUX.1 Kontext without a reference picture, which is FLUX.1 with other weights."""

from diffusers import FluxKontextPipeline
from tiny_flux import tiny_flux_pipeline

from families.base import TinyFamily, pack_2x2, unpack_2x2


def pipeline() -> FluxKontextPipeline:
    made = FluxKontextPipeline(**tiny_flux_pipeline(seed=6).components)
    made.set_progress_bar_config(disable=True)
    return made


BOTH = ("encoder_hidden_states", "hidden_states")

FAMILIES = [
    TinyFamily(
        name="FLUX.1-Kontext",
        make=pipeline,
        guided=(3.5, {"guidance_scale": 3.5}),
        unguided=(1.0, {"guidance_scale": 1.0}),
        block_inputs={"double": BOTH, "single": BOTH},
        pack=pack_2x2,
        unpack=unpack_2x2,
        call=lambda height, width: {"max_area": height * width},  # else the pipeline goes to a megapixel
    )
]
