"""What only ComfyUI itself can show: its samplers, LoRA, inpainting masks, and its other models."""

import os

import pytest
import torch
from on_host import PROMPT, STEPS, TARGET, Setting

import stableflow as sf

pytestmark = pytest.mark.skipif(
    not os.environ.get("COMFYUI"), reason="ComfyUI is no package; COMFYUI=/path/to/ComfyUI runs these"
)
SAMPLERS = [
    "euler",
    "heun",
    "dpm_2",
    "dpmpp_2m",
    "res_multistep",
    "euler_ancestral",
    "dpmpp_2s_ancestral",
    "uni_pc",
    "lcm",
    "ddim",
]


@pytest.fixture(scope="module")
def setting(pack, as_model, pipeline, model):
    return Setting(pack, as_model(pipeline.transformer), model)


@pytest.fixture(scope="module")
def theirs(setting):
    return sf.StableFlow(setting.library, layers=[1]).generate(PROMPT, seed=3, num_steps=STEPS, guidance_scale=3.5)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_retraces_its_source(setting, theirs, sampler):
    """The source's own prompt, some layers held: nothing changes; another prompt: the mask's outside does not."""
    source = setting.source(theirs, sampler=sampler)
    back = setting.edit(source, setting.hold("1, 2, 4"), prompt=PROMPT, sampler=sampler)
    assert float((back - source.picture).abs().max()) < 1e-4
    mask = torch.zeros(1, 16, 16)
    mask[:, :8] = 1.0
    edit = setting.edit(source, setting.hold("all"), mask=mask, sampler=sampler)
    assert float((edit - source.picture)[..., 4:, :].abs().max()) < 1e-4
    assert float((edit - source.picture)[..., :4, :].abs().max()) > 1e-2


def test_the_samplers_own_node_makes_the_edit(setting, theirs):
    """KSampler with any seed, as the example workflows have it."""
    import nodes

    source, hold = setting.source(theirs), setting.hold("1, 2, 4")
    patched = setting.node("Inject", source=source, hold=hold, times="nearest")[0]
    latent, prompt = {"samples": torch.zeros(setting.size)}, setting.prompt(TARGET)
    edits = [
        nodes.common_ksampler(patched, seed, STEPS, 1.0, "euler", "simple", prompt, prompt, latent)[0]["samples"]
        for seed in (0, 1)
    ]
    assert torch.equal(*edits) and edits[0].isfinite().all()


def test_a_lora_acts_on_edits_and_not_on_kept_sources(setting, theirs):
    plain, hold = setting.source(theirs), setting.hold("1, 2, 4")
    tuned = setting.model.clone()
    change = torch.randn(96, 32, generator=torch.Generator().manual_seed(0)) * 0.1
    tuned.add_patches({"diffusion_model.double_blocks.0.img_attn.qkv.weight": ("diff", (change,))}, 1.0)
    before = setting.edit(plain, hold)
    edit = setting.edit(plain, hold, model=tuned)
    assert float((edit - before).abs().max()) > 1e-3
    assert torch.equal(setting.edit(plain, hold), before)


def test_an_inpainting_mask_goes_with_it(setting, theirs):
    """Set Latent Noise Mask: outside, the host's own blending; edits stay finite and equal themselves."""
    import comfy.sample
    import comfy.samplers

    source = setting.source(theirs)
    patched = setting.node("Inject", source=source, hold=setting.hold("1"))[0]
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :4, :] = 1.0
    edit = comfy.sample.sample_custom(
        patched, torch.zeros(setting.size), 1.0, comfy.samplers.sampler_object("euler"), setting.sigmas,
        setting.prompt(TARGET), setting.prompt(TARGET), source.picture, noise_mask=mask, disable_pbar=True, seed=0,
    )  # fmt: skip
    torch.testing.assert_close(edit[..., 4:, :], source.picture[..., 4:, :], atol=1e-5, rtol=0)
    assert float((edit - source.picture)[..., :4, :].abs().max()) > 0.1


def qwen():
    import comfy.supported_models

    config = {"image_model": "qwen_image", "num_layers": 3, "attention_head_dim": 16, "num_attention_heads": 2}
    config |= {
        "joint_attention_dim": 24,
        "in_channels": 64,
        "out_channels": 16,
        "axes_dims_rope": (4, 6, 6),
        "patch_size": 2,
    }
    return comfy.supported_models.QwenImage(config), (1, 16, 1, 8, 8), 24


def chroma():
    import comfy.supported_models

    config = {
        "image_model": "chroma",
        "in_channels": 64,
        "out_channels": 64,
        "context_in_dim": 24,
        "hidden_size": 32,
        "mlp_ratio": 4.0,
    }
    config |= {
        "num_heads": 2,
        "depth": 2,
        "depth_single_blocks": 2,
        "axes_dim": [4, 6, 6],
        "theta": 10000,
        "patch_size": 2,
    }
    config |= {
        "qkv_bias": True,
        "txt_ids_dims": [],
        "vec_in_dim": None,
        "in_dim": 64,
        "out_dim": 32,
        "hidden_dim": 16,
        "n_layers": 2,
    }
    return comfy.supported_models.Chroma(config), (1, 16, 8, 8), 24


def flux2():
    import comfy.supported_models

    config = {
        "image_model": "flux2",
        "in_channels": 128,
        "out_channels": 128,
        "patch_size": 1,
        "vec_in_dim": None,
        "context_in_dim": 24,
    }
    config |= {
        "hidden_size": 32,
        "mlp_ratio": 3.0,
        "num_heads": 2,
        "depth": 2,
        "depth_single_blocks": 2,
        "axes_dim": [4, 4, 4, 4],
    }
    config |= {"theta": 2000, "qkv_bias": False, "guidance_embed": True, "txt_ids_dims": [3], "global_modulation": True}
    config |= {"mlp_silu_act": True, "ops_bias": False}
    return comfy.supported_models.Flux2(config), (1, 128, 4, 4), 24


@pytest.mark.parametrize("family", [flux2, chroma, qwen])
def test_other_families(pack, family):
    """The seam is the same: a source's own prompt retraces it, another prompt is held outside a mask."""
    import comfy.model_patcher

    given, size, width = family()
    given.unet_config["dtype"], given.manual_cast_dtype = torch.float32, None
    with torch.random.fork_rng():
        torch.manual_seed(0)
        flow = given.get_model({}, device=torch.device("cpu")).eval()
        for parameter in flow.diffusion_model.parameters():
            torch.nn.init.normal_(parameter, std=1.2 * parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.5)
    cpu = torch.device("cpu")
    model = comfy.model_patcher.ModelPatcher(flow, load_device=cpu, offload_device=cpu)
    setting = Setting.__new__(Setting)
    setting.pack, setting.model, setting.size, setting.sigmas = pack, model, size, torch.linspace(1, 0, 4)
    texts = {
        name: 3 * torch.randn(1, 7, width, generator=torch.Generator().manual_seed(i))
        for i, name in enumerate((PROMPT, TARGET, "a car"))
    }
    setting.prompt = lambda text, guidance=3.5: [
        [texts[text], {"guidance": guidance, "pooled_output": torch.zeros(1, 8)}]
    ]
    source = setting.node(
        "Source", seed=3, steps=3, cfg=1.0, sampler_name="euler", scheduler="simple", positive=setting.prompt(PROMPT),
        latent={"samples": torch.zeros(size)}, sigmas=setting.sigmas,
    )[0]  # fmt: skip
    back = setting.edit(source, setting.hold("all"), prompt=PROMPT)
    picture = setting.pack.host.into_model(model, back)
    assert float((picture - source.picture).abs().max()) < 1e-3 * float(source.picture.abs().max())
    held, free = setting.edit(source, setting.hold("all")), setting.edit(source, setting.dial(1.0))
    assert float((held - free).abs().max()) > 1e-4  # rounding is below 1e-5
    mask = torch.zeros(1, 4, 4)
    mask[:, :2] = 1.0
    picture, half = (
        setting.pack.host.into_model(model, setting.edit(source, setting.hold("all"), mask=mask)),
        size[-2] // 2,
    )
    apart = (picture - source.picture).abs() / source.picture.abs().max()
    assert float(apart[..., half:, :].max()) < 1e-5 and float(apart[..., :half, :].max()) > 1e-4


def test_the_bundled_model_edits_as_the_library_does(pack):
    """Trained weights, in ComfyUI's FLUX class, CLIP Text Encode and VAE Decode."""
    import nodes

    library = sf.load("tiny")
    editor = sf.StableFlow(library, kv_memory="device")
    before, after = "a red dog standing on the grass at noon", "a red dog sitting on the grass at noon"
    theirs = editor.generate(before, seed=1, num_steps=8)
    model, clip, vae = pack.nodes["StableFlowBundledModel"].execute().args
    setting = Setting(pack, model, library)
    setting.size, setting.sigmas = tuple(theirs.latents.shape), torch.tensor(theirs.grid.times)
    setting.prompt = lambda text, guidance=3.5: nodes.CLIPTextEncode().encode(clip, text)[0]
    noise_for, pack.host.noise_for = pack.host.noise_for, lambda samples, seed: theirs.path.at(1.0)
    source = setting.node(
        "Source", seed=1, steps=8, cfg=1.0, sampler_name="euler", scheduler="simple", positive=setting.prompt(before),
        latent={"samples": torch.zeros(setting.size)}, sigmas=setting.sigmas,
    )[0]  # fmt: skip
    pack.host.noise_for = noise_for
    hold = setting.node("VitalLayers", preset="tiny", layers="", weight=1.0)[0]
    edit, wanted = setting.edit(source, hold, prompt=after, negative=before), editor.edit(theirs, after)
    assert float((edit - wanted.latents).abs().max()) < 1e-4
    picture = nodes.VAEDecode().decode(vae, {"samples": edit})[0]
    assert float((picture[0].permute(2, 0, 1) - wanted.images[0]).abs().max()) < 1e-3
    assert float((wanted.latents - theirs.latents).abs().max()) > 1.0
