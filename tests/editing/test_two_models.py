"""LoRA switched by row: rows with and without are those of the two models; SINE's mix on top."""

import pytest
import torch
from families import FAMILIES
from on_families import EDITS, SOURCE, check_end_to_end, on_two_families, picture
from peft import LoraConfig

import stableflow as sf
from stableflow.editing import EDITORS
from stableflow.errors import InputError, InterventionError


def gap(first, second):
    return float((first - second).abs().max())


@pytest.fixture(scope="module")
def adapted():
    made = {}

    def of(family):
        if family not in made:
            pipeline = FAMILIES[family].make()
            targets = ["to_q", "to_k", "to_v", "to_out.0", "norm1.linear", "proj_out"]
            with torch.random.fork_rng():
                torch.manual_seed(5)
                pipeline.transformer.add_adapter(LoraConfig(r=2, target_modules=targets, init_lora_weights=False))
            made[family] = sf.wrap(pipeline, name=family)
        return made[family]

    return of


@on_two_families
def test_rows_with_and_without_are_those_of_the_two_models(family, adapted):
    model = adapted(family)
    told = model.encode_prompt([SOURCE, EDITS[0], SOURCE])
    z = torch.randn(3, *model.latent_shape(16, 16), generator=torch.Generator().manual_seed(0))
    scale = 3.0  # classifier-free where the family is
    with_, transformer = model.velocity(z, 0.6, told, guidance_scale=scale), model.pipeline.transformer
    transformer.disable_adapters()
    without = model.velocity(z, 0.6, told, guidance_scale=scale)
    transformer.enable_adapters()
    assert gap(with_, without) > 1e-2
    with model.adapting([1.0, 0.0, 0.5]):
        mixed = model.velocity(z, 0.6, told, guidance_scale=scale)
    rounding = 1e-5 * float(with_.abs().max())
    assert gap(mixed[0], with_[0]) <= rounding and gap(mixed[1], without[1]) <= rounding
    assert min(gap(mixed[2], with_[2]), gap(mixed[2], without[2])) > 1e-3
    assert torch.equal(model.velocity(z, 0.6, told, guidance_scale=scale), with_), "left as it was"
    with model.adapting([0.0]):
        alone = model.velocity(z[1:2], 0.6, model.encode_prompt(EDITS[:1]), guidance_scale=scale)
    assert gap(alone, mixed[1:2]) <= rounding, "a row alone is the row in a batch"


@on_two_families
def test_the_mix_written_out(family, adapted):
    model, size = adapted(family), FAMILIES[family].size
    settings = {"num_steps": 3, "mix": 0.3, "source_adapter": 1.0, "edit_adapter": 0.0, "guidance_scale": 2.5}
    editor = EDITORS["two-models"](model, **settings)
    source, seen = editor.invert(picture(size), SOURCE, height=size, width=size), []
    editor.edit(source, EDITS[0], callback=seen.append)
    step, path = seen[0], next(iter(source.kept.values()))
    aligned = step.previous + path.offsets[step.t0]
    theirs = model.velocity(aligned, step.t0, model.encode_prompt([SOURCE]), guidance_scale=2.5)
    model.pipeline.transformer.disable_adapters()
    own = model.velocity(aligned, step.t0, model.encode_prompt(EDITS[:1]), guidance_scale=2.5)
    model.pipeline.transformer.enable_adapters()
    assert gap(step.latents, step.previous + (step.t1 - step.t0) * (0.7 * own + 0.3 * theirs)) <= 1e-4
    one = editor.having(edit_adapter=1.0, guidance_scale=1.0)
    assert gap(one.edit(source, SOURCE).latents, source.latents) <= 1e-4, "its own prompt, on one model, returns it"
    assert gap(editor.edit(source, SOURCE, guidance_scale=1.0).latents, source.latents) > 1e-3


def test_what_cannot_be_switched(adapted):
    model = adapted("FLUX.1")
    z = torch.zeros(1, *model.latent_shape(16, 16))
    with pytest.raises(InterventionError, match="switched for 2"), model.adapting([1.0, 0.0]):
        model.velocity(z, 0.5, model.encode_prompt([SOURCE]), guidance_scale=1.0)
    with pytest.raises(InputError, match="no adapter"), sf.wrap(FAMILIES["FLUX.1"].make()).adapting([1.0]):
        pass
    with pytest.raises(InputError, match="one a row"), model.adapting([]):
        pass


@on_two_families
def test_end_to_end(family):
    check_end_to_end("two-models", family, num_steps=5)
