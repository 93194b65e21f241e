"""Files in every layout and family: each loads to the weights that were written, or is refused as the docs say."""

import re

import pytest
import torch
from layouts import BEGIN, DOCS, END, FOLDERS, LAYOUTS, NAMES, authors, expected, load, measured, pipeline_of

from stableflow.errors import LoadError
from stableflow.models.known import KNOWN
from stableflow.models.single_file import guess_components


def documented():
    lines = DOCS.read_text().split(BEGIN)[1].split(END)[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return {(family, row[0]): cell for row in rows[1:] for family, cell in zip(rows[0][1:], row[1:])}


@pytest.mark.parametrize("family", NAMES)
def test_what_loads_is_what_the_docs_say(family):
    told = documented()
    for layout in LAYOUTS:
        assert measured(family, layout).split(":")[0] == told[family, layout], layout


WIDTH = {"flux-dev": 3072, "chroma": 3072, "flux2-dev": 6144, "klein-9b": 4096, "sd3.5-large": 2432, "z-image": 3840}
OF = {"flux-dev": "FLUX.1", "chroma": "Chroma", "flux2-dev": "FLUX.2-dev", "klein-9b": "FLUX.2-klein",
      "sd3.5-large": "SD3.5-medium", "z-image": "Z-Image"}  # fmt: skip


@pytest.mark.parametrize("name", WIDTH)
@pytest.mark.parametrize("make", [expected, authors])
def test_a_file_tells_its_model_by_names_and_widths(name, make):
    pipeline_of(OF[name])
    shapes = {key: (WIDTH[name], *tensor.shape[1:]) for key, tensor in make(OF[name]).items()}
    assert guess_components(shapes) == KNOWN[name].repository


def test_what_is_not_told_is_asked_for(tmp_path):
    import stableflow as sf

    pipeline_of("Chroma")
    load("Chroma", expected("Chroma"), name="alone.safetensors")
    with pytest.raises(LoadError, match=r"a whole transformer, and it is not told of which model.*components="):
        sf.load(FOLDERS / "Chroma-alone.safetensors", device="cpu", offline=True)


@pytest.mark.parametrize(
    "state, told",
    [
        (
            {"encoder.embed_tokens.weight": torch.ones(7, 5)},
            r"a text encoder of 7 tokens of 5 numbers",
        ),
        ({"some.thing": torch.ones(2)}, "weights of another kind"),
        ({"decoder.conv_in.weight": torch.ones(2)}, "encoder|weights|layout"),
    ],
)
def test_parts_of_another_model_are_named(state, told):
    from safetensors.torch import save_file

    pipeline_of("Chroma")
    save_file(state, FOLDERS / "strange.safetensors")
    with pytest.raises(LoadError, match=told) as caught:
        load("Chroma", expected("Chroma"), [FOLDERS / "strange.safetensors"])
    assert re.search("strange.safetensors", str(caught.value))
