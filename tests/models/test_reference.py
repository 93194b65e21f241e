"""Reference pictures: trained editors draw what diffusers' own pipelines draw, and injection and regions act on top."""

import pytest
import torch
from families import FAMILIES

import stableflow as sf
from stableflow.cli.settings import order_from
from stableflow.errors import FingerprintError, InputError
from stableflow.images import to_pil

PROMPT = "a blue cat on the grass"
NAMES = ["FLUX.1-Kontext", "FLUX.2-dev", "FLUX.2-klein"]
MODELS = {}


def model_of(name):
    if name not in MODELS:
        family = FAMILIES[name]
        MODELS[name] = sf.wrap(family.make(), name=name, max_sequence_length=family.text_lengths[0])
    return MODELS[name]


def picture(seed, height=64, width=64):
    rough = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))
    return (rough * 255).round() / 255  # as a file would hold it


def by_diffusers(name, latents, pictures, scale):
    """The final latents of the pipeline's own call."""
    family, model, seen = FAMILIES[name], model_of(name), {}
    own = {"_auto_resize": False} if "Kontext" in name else {}
    given = [to_pil(one[0]) for one in pictures]
    model.pipeline(
        image=given[0] if "Kontext" in name else given, prompt=PROMPT, latents=family.pack(model.pipeline, latents),
        height=16, width=16, num_inference_steps=2, guidance_scale=scale, output_type="latent",
        max_sequence_length=family.text_lengths[0],
        callback_on_step_end=lambda pipeline, step, t, tensors: seen.update(tensors) or tensors,
        **family.call(16, 16), **own,
    )  # fmt: skip
    return family.unpack(model.pipeline, seen["latents"], tuple(latents.shape)).float()


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_drawn_with_a_reference_is_diffusers_own(name):
    model, scale = model_of(name), FAMILIES[name].guided[0]
    pictures = [picture(1)] if "Kontext" in name else [picture(1), picture(2, 64, 96)]
    latents = torch.randn(1, *model.latent_shape(16, 16), generator=torch.Generator().manual_seed(0))
    expected = by_diffusers(name, latents, pictures, scale)
    editor = sf.StableFlow(model, layers=[])
    plain = model.encode_prompt([PROMPT])
    made, without = (
        editor.generate(prompt, latents=latents, num_steps=2, guidance_scale=scale).latents
        for prompt in (model.with_reference(plain, pictures), plain)
    )
    assert torch.equal(made, expected) and not torch.allclose(made, without, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_injection_and_regions_act_on_top(name):
    """All image keys and values of the source hold more of it than none do, and a region holds all outside."""
    model, given = model_of(name), picture(3)[0]
    source = sf.StableFlow(model, layers=[0], kv_memory="cpu").generate("a red dog", seed=1, num_steps=2)
    edits = {
        name: sf.StableFlow(model, layers=layers, kv_memory="cpu")
        .edit(source, PROMPT, reference=given, region=region, exact=False).latents
        for name, layers, region in (
            ("none", [], None), ("one", [0], None), ("region", [0], sf.Region.box(0, 0, 8, 8, size=(16, 16))))
    }  # fmt: skip
    alone = sf.StableFlow(model, layers=[0], kv_memory="cpu").edit(source, PROMPT).latents
    assert not torch.allclose(edits["one"], alone, atol=1e-3), "the reference acts"
    assert not torch.allclose(edits["one"], edits["none"], atol=1e-3), "injection acts on top"
    half = edits["region"].shape[-1] // 2
    assert torch.allclose(edits["region"][..., half:], source.latents[..., half:], atol=1e-5)
    assert not torch.allclose(edits["region"][..., :half, :half], source.latents[..., :half, :half], atol=1e-3)


def test_the_recipe_holds_digests_and_the_picture_is_asked_for_again(tmp_path):
    model, given = model_of("FLUX.1-Kontext"), picture(3)[0]
    editor = sf.StableFlow(model, layers=[0])
    source = editor.generate("a red dog", seed=1, num_steps=1)
    first, second = (editor.edit(source, PROMPT, reference=one).recipe for one in (given, picture(4)[0]))
    assert len(first["reference"]) == 1 and first["reference"] != second["reference"]
    assert "reference" not in editor.edit(source, PROMPT).recipe


def test_what_takes_no_reference_says_so():
    model = model_of("FLUX.1-Kontext")
    editor = sf.StableFlow(model, layers=[0])
    with pytest.raises(InputError, match="takes one reference picture, and 2 were given"):
        editor.generate(PROMPT, seed=1, num_steps=1, reference=[picture(1)[0], picture(2)[0]])
    with pytest.raises(InputError, match=r"share a batch.*reference"):
        shared = sf.StableFlow(model, layers=[0], kv_memory="share")
        shared.edit(shared.generate("a red dog", seed=1, num_steps=1), PROMPT, reference=picture(1)[0])
    for name, told in (("FLUX.1", "was not trained with reference pictures"), ("Chroma", "Chroma takes no reference")):
        with pytest.raises(InputError, match=told):
            sf.StableFlow(model_of(name), layers=[]).generate(PROMPT, seed=1, num_steps=1, reference=picture(1)[0])


def test_a_run_with_a_reference_is_ordered_and_repeated(tmp_path):
    from stableflow.images import save_png
    from stableflow.order import Order, from_recipe

    model = model_of("FLUX.1-Kontext")
    for number in (1, 2):
        save_png(tmp_path / f"{number}.png", to_pil(picture(number)[0]))
    wanted = {"prompt": "a red dog", "seed": 1, "steps": 1, "to": [PROMPT], "layers": [0]}
    result = Order(**wanted, reference=tmp_path / "1.png").run(model)
    repeated = from_recipe(result.recipe)
    assert torch.equal(Order(**repeated, reference=[tmp_path / "1.png"]).run(model).latents, result.latents)
    with pytest.raises(FingerprintError, match="reference pictures are not those"):
        Order(**repeated, reference=[tmp_path / "2.png"]).run(model)
    with pytest.raises(InputError, match="give them with --reference"):
        order_from(repeated)
