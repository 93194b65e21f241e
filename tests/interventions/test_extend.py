"""Keys and values read beside a pass's own, and features that take over a source's statistics."""

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from families import FAMILIES
from models.conformance import PROMPTS, ROUNDING, T, every, gap, model_of, noise, square
from torch.overrides import TorchFunctionMode

from stableflow.interventions import ExtendKV, KVStore, MatchStatistics, RecordKV
from stableflow.interventions.blend import low_band
from stableflow.interventions.moments import matched


class TwiceAsMuch(TorchFunctionMode):
    """The first attention reads each image token twice: log 2 more for them."""

    def __init__(self, image):
        super().__init__()
        self.image, self.calls = image, 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.scaled_dot_product_attention:
            self.calls += 1
            if self.calls == 1:
                given = {**dict(zip(("query", "key", "value"), args)), **(kwargs or {})}
                bias = given["query"].new_zeros(1, 1, 1, given["key"].shape[2])
                bias[..., self.image] = torch.tensor(2.0).log()
                return func(**{**given, "attn_mask": bias})
        return func(*args, **(kwargs or {}))


def passed(model, latents, *interventions, within=None):
    prompt = model.encode_prompt(PROMPTS[:1])
    with model.attach(*interventions), within or nullcontext():
        return model.velocity(latents, T, prompt, guidance_scale=2.0)


@pytest.mark.parametrize("name", ["FLUX.1", "SD3"])
def test_ones_own_keys_and_values_beside_are_each_token_read_twice(name):
    family, store = FAMILIES[name], KVStore()
    model = model_of(family)
    latents = noise(model, square(family))
    alone = passed(model, latents, RecordKV(every(model), store))
    twice = passed(model, latents, ExtendKV([0], store))
    start = model.family.layout(*[side // model.pixel_multiple for side in square(family)], family.text_lengths[0])
    mode = TwiceAsMuch(start.joint_span("image"))
    expected = passed(model, latents, within=mode)
    assert mode.calls > 1 and gap(twice, expected) <= ROUNDING < gap(twice, alone)


def test_another_pictures_statistics():
    model, store = model_of(FAMILIES["FLUX.1"]), KVStore()
    latents = noise(model, square(FAMILIES["FLUX.1"]))
    alone = passed(model, latents, RecordKV(every(model), store))
    assert gap(passed(model, latents, MatchStatistics(every(model), store)), alone) <= ROUNDING, (
        "its own change nothing"
    )
    assert torch.equal(passed(model, latents.flip(-1), MatchStatistics(every(model), store, weight=0.0)),
                       passed(model, latents.flip(-1)))  # fmt: skip
    torch.manual_seed(0)
    x, s = torch.randn(2, 9, 4), 3 * torch.randn(1, 9, 4) + 1
    out = matched(x, s)
    assert torch.allclose(out.mean(1), s.mean(1).expand(2, -1), atol=1e-5)
    assert torch.allclose(out.std(1), s.std(1).expand(2, -1), rtol=1e-4)


def test_the_low_band_is_the_sources_and_the_rest_ones_own():
    torch.manual_seed(0)
    grid, x, s = (6, 4), torch.randn(2, 24, 3), torch.randn(1, 24, 3)
    assert torch.allclose(low_band(x, 2 * x[:1] - 5, grid)[:1], x[:1], atol=1e-5), "at its own statistics, nothing new"
    taken = low_band(x, s, grid)
    gap_in = (taken - x).unflatten(1, grid).permute(0, 3, 1, 2)
    rough = F.conv2d(gap_in.flatten(0, 1)[:, None], torch.tensor([[[[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]]]))
    other = (matched(s.expand(2, -1, -1), x) - x).unflatten(1, grid).permute(0, 3, 1, 2)
    whole = F.conv2d(other.flatten(0, 1)[:, None], torch.tensor([[[[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]]]))
    assert float(rough.square().mean()) < 0.2 * float(whole.square().mean()), "little of it differs from token to token"
    assert float((taken - x).abs().mean()) > 0.2
