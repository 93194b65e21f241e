"""Memory plans, held against weights that are counted and passes that are measured at true widths."""

import pytest
import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, FluxTransformer2DModel, QwenImageTransformer2DModel, SD3Transformer2DModel
from tiny_flux import tiny_flux_pipeline
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker

import stableflow as sf
from stableflow.errors import InputError, LoadError, UnknownNameError
from stableflow.models import load as loading
from stableflow.models.families import FAMILIES
from stableflow.models.known import KNOWN
from stableflow.models.memory_plan import BUDGETS, DECODED, NUMBERS, TEXT, choose_plan, memory_plans, weighed

BF16 = torch.bfloat16
SD35 = dict(
    sample_size=128, patch_size=2, in_channels=16, attention_head_dim=64, num_attention_heads=24, qk_norm="rms_norm",
    joint_attention_dim=4096, caption_projection_dim=1536, pooled_projection_dim=2048, out_channels=16,
    pos_embed_max_size=384,
)  # fmt: skip


def flux_pass(transformer, rows, tokens):
    transformer(
        **text_and_tokens(rows, tokens, 4096), pooled_projections=torch.randn(rows, 768, dtype=BF16),
        guidance=torch.ones(rows), img_ids=torch.zeros(tokens, 3), txt_ids=torch.zeros(TEXT, 3),
    )  # fmt: skip


def qwen_pass(transformer, rows, tokens):
    side = int(tokens**0.5)
    shapes = [[(1, side, side)]] * rows
    transformer(**text_and_tokens(rows, tokens, 3584), encoder_hidden_states_mask=None, img_shapes=shapes)


def sd3_pass(transformer, rows, tokens):
    side = 2 * int(tokens**0.5)
    inputs = text_and_tokens(rows, tokens, 4096) | {"hidden_states": torch.randn(rows, 16, side, side, dtype=BF16)}
    transformer(**inputs, pooled_projections=torch.randn(rows, 2048, dtype=BF16))


def text_and_tokens(rows, tokens, width):
    return {
        "hidden_states": torch.randn(rows, tokens, 64, dtype=BF16),
        "encoder_hidden_states": torch.randn(rows, TEXT, width, dtype=BF16),
        "timestep": torch.ones(rows, dtype=BF16),
        "return_dict": False,
    }


def live_bytes(make, call):
    """Bytes of weights, and the most that lived beside them in a pass, of tensors without content."""
    with FakeTensorMode(), torch.no_grad():
        torch.set_default_dtype(BF16)
        try:
            module = make().eval()
        finally:
            torch.set_default_dtype(torch.float32)
        tracker = MemTracker()
        tracker.track_external(module)
        with tracker:
            call(module)
        (peak,) = tracker.get_tracker_snapshot("peak").values()
    weights = sum(size for kind, size in peak.items() if "PARAM" in str(kind) or "BUFFER" in str(kind))
    return weights, peak["Total"] - weights


CASES = {
    "flux-dev": (lambda: FluxTransformer2DModel(num_layers=1, num_single_layers=1, guidance_embeds=True), flux_pass),
    "qwen-image": (lambda: QwenImageTransformer2DModel(num_layers=1), qwen_pass),
    "sd3.5-medium": (lambda: SD3Transformer2DModel(num_layers=2, dual_attention_layers=(0, 1), **SD35), sd3_pass),
}


@pytest.mark.parametrize("rows, tokens", [(2, 4096), (3, 1024)])
@pytest.mark.parametrize("name", CASES)
def test_a_pass_takes_what_the_plan_says(name, rows, tokens):
    known, (make, call) = KNOWN[name], CASES[name]
    _, passing = live_bytes(make, lambda module: call(module, rows, tokens))
    image, text = NUMBERS[known.pipeline]
    assert abs(passing - 2 * rows * known.width * (image * tokens + text * TEXT)) <= 0.03 * passing


def shallow_flux(depth=1, **changed):
    return FluxTransformer2DModel(num_layers=depth, num_single_layers=2 * depth, guidance_embeds=True, **changed)


def test_depth_adds_weights_alone():
    (one, passing), (two, again) = (
        live_bytes(lambda: shallow_flux(depth), lambda module: flux_pass(module, 2, 256))  # noqa: B023
        for depth in (1, 2)
    )
    assert passing == again
    whole = one + 18 * (two - one)  # 19 double and 38 single layers
    assert abs(whole - 2e9 * KNOWN["flux-dev"].billions["transformer"]) <= 0.01 * whole


def test_a_real_pass_takes_what_one_without_content_does():
    expected = live_bytes(lambda: shallow_flux(num_attention_heads=4), lambda module: flux_pass(module, 2, 256))
    transformer, tracker = shallow_flux(num_attention_heads=4).to(BF16).eval(), MemTracker()
    tracker.track_external(transformer)
    with torch.no_grad(), tracker:
        flux_pass(transformer, 2, 256)
    (peak,) = tracker.get_tracker_snapshot("peak").values()
    assert abs(peak["Total"] - sum(expected)) <= 0.02 * sum(expected)


def test_the_decoder_takes_what_the_plan_says():
    def make():
        return AutoencoderKL(
            in_channels=3, out_channels=3, down_block_types=("DownEncoderBlock2D",) * 4, latent_channels=16,
            up_block_types=("UpDecoderBlock2D",) * 4, block_out_channels=(128, 256, 512, 512), layers_per_block=2,
            use_quant_conv=False, use_post_quant_conv=False,
        )  # fmt: skip

    weights, drawing = live_bytes(make, lambda vae: vae.decode(torch.randn(2, 16, 64, 64, dtype=BF16)))
    assert abs(drawing - 2 * DECODED * 512**2 * 2) <= 0.1 * drawing
    assert abs(weights - 2e9 * KNOWN["flux-dev"].billions["vae"]) <= 0.01 * weights


@pytest.mark.parametrize(
    "name, make",
    [
        ("flux-dev", lambda: FluxTransformer2DModel(guidance_embeds=True)),
        (
            "sd3.5-medium",
            lambda: SD3Transformer2DModel(num_layers=24, dual_attention_layers=tuple(range(13)), **SD35),
        ),
    ],
)
def test_parameters_are_those_of_the_real_classes(name, make):
    with init_empty_weights():
        transformer = make()
    count = sum(weight.numel() for weight in transformer.parameters())
    layers = [layer for blocks in FAMILIES[KNOWN[name].pipeline].blocks for layer in blocks.layers(transformer, 0)]
    largest = max(sum(weight.numel() for weight in layer.block.parameters()) for layer in layers)
    assert abs(count / 1e9 - KNOWN[name].billions["transformer"]) <= 0.01
    assert abs(largest / count - KNOWN[name].largest) <= 0.0005


def test_flux_dev_fits_the_cards_that_people_have():
    flux = KNOWN["flux-dev"]
    plans = {memory: choose_plan(flux, memory) for memory in BUDGETS}
    assert plans["80g"].offload == "none" and plans["80g"].transformer == "bf16"
    assert plans["16g"].peak <= 16e9 and plans["16g"].transformer == "int8"
    assert plans["12g"].peak <= 12e9 and plans["12g"].transformer == "nf4"
    assert plans["8g"].peak <= 8e9 and plans["8g"].offload == "group"
    assert all(
        choose_plan(known, memory).peak <= 0.95 * BUDGETS[memory] for known in KNOWN.values() for memory in BUDGETS
    )


def test_what_is_asked_for_more_takes_more():
    flux, peaks = KNOWN["flux-dev"], []
    for run in ({}, {"rows": 3}, {"height": 2048}, {"stored": 10**9}):
        peaks.append(next(memory_plans(flux, **run)).stages["steps"])
    assert peaks[0] < min(peaks[1:])
    assert next(memory_plans(flux, stored=10**9)).stages["steps"] - peaks[0] == 10**9
    guided = next(memory_plans(KNOWN["sd3.5-large"])).stages
    assert guided["steps"] > guided["text"]
    with pytest.raises(InputError, match="fits no plan for 8.2 GB: the smallest takes .* GB .one block at a time"):
        choose_plan(flux, "8g", height=4096, width=4096)


def test_a_folder_is_weighed_by_its_files(tmp_path):
    pipeline = tiny_flux_pipeline()
    pipeline.save_pretrained(tmp_path)
    known = weighed(tmp_path)
    for part in ("transformer", "vae", "text_encoder"):
        stored = {weight.data_ptr(): weight.numel() for weight in getattr(pipeline, part).state_dict().values()}
        assert known.billions[part] * 1e9 == pytest.approx(sum(stored.values()))
    assert known.width == pipeline.transformer.inner_dim and 0 < known.largest < 1
    assert choose_plan(known, "8g").offload == "none"
    (tmp_path / "transformer" / "diffusion_pytorch_model.safetensors").write_bytes(b"cut off")
    with pytest.raises(LoadError, match=r"diffusion_pytorch_model\.safetensors could not be read"):
        weighed(tmp_path)


def test_loading_by_name_and_plan(monkeypatch):
    with pytest.raises(InputError, match="memory='16g' plans for an accelerator; this run is on the CPU"):
        sf.load("flux-dev", memory="16g", device="cpu")
    with pytest.raises(InputError, match="give it alone"):
        loading.planned("flux-dev", "16g", "cuda", taken=True)
    assert loading.planned("flux-dev", "16g", "cuda") == ("model", "int8", None, False)
    assert loading.planned("black-forest-labs/FLUX.1-dev", "80g", "cuda") == (
        "none",
        None,
        None,
        False,
    )
    with pytest.raises(InputError, match="No memory plan is known for someone/model.*flux-dev"):
        weighed("someone/model")
    with pytest.raises(InputError, match='Name a size instead, such as "16g"'):
        choose_plan(KNOWN["flux-dev"], "auto", torch.device("cpu"))
    asked = []
    monkeypatch.setattr(loading, "model_index", lambda location, *rest: asked.append(location) or {"_class_name": "X"})
    with pytest.raises(UnknownNameError, match="is a X, which no family"):
        sf.load("klein-4b", device="cpu")
    assert asked == ["black-forest-labs/FLUX.2-klein-4B"]
