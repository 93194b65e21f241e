"""What the nodes refuse, and what their messages say to do."""

import re

import pytest
import torch
from on_host import NEGATIVE, PROMPT, STEPS, Setting

import stableflow as sf


@pytest.fixture(scope="module")
def setting(pack, as_model, pipeline, model):
    return Setting(pack, as_model(pipeline.transformer), model)


@pytest.fixture(scope="module")
def source(setting):
    library = sf.StableFlow(setting.library, layers=[1])
    return setting.source(library.generate(PROMPT, seed=3, num_steps=STEPS, guidance_scale=3.5))


def test_other_steps_than_the_sources(setting, source):
    other = torch.tensor([1.0, 0.55, 0.0])
    with pytest.raises(sf.StableFlowError, match=r"sigma 0\.5500, and the source was never there.*nearest"):
        setting.edit(source, setting.hold("1"), sigmas=other)
    assert setting.edit(source, setting.hold("1"), sigmas=other, times="nearest").isfinite().all()


def test_another_size_than_the_sources(setting, source):
    larger = Setting(setting.pack, setting.model, setting.library)
    larger.size = (1, setting.size[1], 12, 12)
    with pytest.raises(sf.StableFlowError, match="latent that comes out of the source's node"):
        larger.edit(source, setting.hold("1"))


def test_a_negative_prompt_that_the_source_never_had(setting, source):
    with pytest.raises(sf.StableFlowError, match="Connect negative to the source's node"):
        setting.edit(source, setting.hold("1"), cfg=2.0, negative=NEGATIVE)


def test_masks_that_are_not_as_many_as_edits(setting, source):
    with pytest.raises(sf.StableFlowError, match="2 masks for 3 edits"):
        setting.edit(source, setting.hold("1"), mask=torch.ones(2, 16, 16), rows=3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5", "2 double and 3 single layers, all 0 to 4"),
        ("single: 3", "single 0 to 2"),
        ("first", "is no list of layers"),
        ("double:", "is no list of layers"),
    ],
)
def test_layers_that_are_not_there(setting, text, message):
    with pytest.raises(sf.StableFlowError, match=message):
        setting.hold(text)


def test_layers_by_kind_and_in_order_are_the_same(setting):
    assert setting.hold("double: 1; single: 0, 2")[0].layers == setting.hold("1, 2, 4")[0].layers == (1, 2, 4)
    assert setting.hold("all")[0].layers == (0, 1, 2, 3, 4)


def test_a_set_of_another_checkpoint(setting):
    with pytest.raises(sf.StableFlowError, match="57 layers and this model has 5"):
        setting.node("VitalLayers", preset="black-forest-labs/FLUX.1-dev", layers="", weight=1.0)


def test_a_word_that_is_not_in_the_prompt(setting, source):
    with pytest.raises(sf.StableFlowError, match=re.escape("no word 'cat'")):
        setting.node("RegionFromWord", clip=None, source=source, prompt=PROMPT, word="cat", guidance=1.0)


def test_a_move_of_less_than_a_token(setting, source):
    with pytest.raises(sf.StableFlowError, match="less than half a token"):
        setting.node("Move", source=source, mask=torch.ones(1, 16, 16), right=1, down=0, seed=0)


def test_a_model_without_patch_points(setting, source):
    """A model that never calls the attention patches would be edited as if nothing were held."""
    deaf = setting.model.clone()
    deaf.set_model_attn1_patch(lambda *args, **kwargs: {})
    patched = setting.node("Inject", model=deaf, source=source, hold=setting.hold("1"))[0]
    patched.model_options["transformer_options"]["patches"]["attn1_patch"].pop()
    with pytest.raises(sf.StableFlowError, match="did not ask for patches"):
        setting.sample(patched, PROMPT)


def test_no_transformer_of_a_known_kind(pack):
    from sf_pack.engine.layers import Numbering

    with pytest.raises(sf.StableFlowError, match="gives packs no access"):
        Numbering.of(torch.nn.Linear(1, 1))
