"""FLUX.1: 2 double and 3 single layers."""

from tiny_flux import tiny_flux_pipeline

from families.base import TinyFamily, pack_2x2, unpack_2x2

BOTH = ("encoder_hidden_states", "hidden_states")

FAMILIES = [
    TinyFamily(
        name="FLUX.1",
        make=tiny_flux_pipeline,
        guided=(3.5, {"guidance_scale": 3.5}),
        unguided=(1.0, {"guidance_scale": 1.0}),
        block_inputs={"double": BOTH, "single": BOTH},
        pack=pack_2x2,
        unpack=unpack_2x2,
    )
]
