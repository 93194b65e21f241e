"""MSE, PSNR and SSIM against scikit-image and by hand, with and without masks; what every metric must hold to."""

import pytest
import torch
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

from stableflow.errors import InputError, UnknownNameError
from stableflow.metrics import METRICS, MSE, mse, psnr, score, ssim
from stableflow.metrics.inputs import check_pair
from stableflow.metrics.pixels import ssim_map

SCIKIT = {"data_range": 1.0, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": 2}


@pytest.fixture
def pair():
    """Two rows of smooth pictures and noisier ones, not square."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(2, 3, 5, 4, generator=generator)
    source = torch.nn.functional.interpolate(coarse, size=(40, 31), mode="bicubic").clamp(0, 1)
    noise = torch.randn(source.shape, generator=generator) * torch.tensor([0.05, 0.2]).view(2, 1, 1, 1)
    return source, (source + noise).clamp(0, 1)


def numpy(image):
    return image.permute(1, 2, 0).double().numpy()


def test_against_scikit_image(pair):
    for row, (a, b) in enumerate(zip(*pair)):
        a, b = numpy(a), numpy(b)
        assert float(mse(*pair)[row]) == pytest.approx(mean_squared_error(a, b), rel=1e-5)
        assert float(psnr(*pair)[row]) == pytest.approx(peak_signal_noise_ratio(a, b, data_range=1), abs=1e-4)
        mean, full = structural_similarity(a, b, full=True, **SCIKIT)
        assert float(ssim(*pair)[row]) == pytest.approx(mean, abs=1e-5)
        inner = torch.from_numpy(full)[5:-5, 5:-5].permute(2, 0, 1)
        assert (ssim_map(*pair)[row] - inner).abs().max() < 1e-4


def test_masks_by_hand(pair):
    generator = torch.Generator().manual_seed(1)
    mask = torch.rand(2, 1, 40, 31, generator=generator) > 0.6
    for row, (a, b) in enumerate(zip(*pair)):
        chosen = mask[row, 0]
        expected = float((a - b).square()[:, chosen].mean())
        assert float(mse(*pair, mask)[row]) == pytest.approx(expected, rel=1e-5)
        assert float(psnr(*pair, mask)[row]) == pytest.approx(-10 * torch.tensor(expected).log10().item(), abs=1e-3)
        _, full = structural_similarity(numpy(a), numpy(b), full=True, **SCIKIT)
        inner = torch.from_numpy(full)[5:-5, 5:-5].mean(2)[chosen[5:-5, 5:-5]].mean()
        assert float(ssim(*pair, mask)[row]) == pytest.approx(float(inner), abs=1e-5)


def test_outside_the_mask_nothing_counts(pair):
    source, edit = pair
    mask = torch.zeros(40, 31)
    mask[:, :12] = 1
    changed = edit.clone()
    changed[..., 20:] = 0.5  # out of reach of every window centred in the mask
    for metric in (mse, psnr, ssim):
        assert torch.equal(metric(source, edit, mask), metric(source, changed, mask))
        assert torch.allclose(metric(source, edit, torch.ones(40, 31)), metric(source, edit), atol=1e-5)
        assert metric(source, edit, torch.zeros(40, 31)).isnan().all()
        half = metric(source, edit, mask * 0.5)
        assert torch.allclose(half, metric(source, edit, mask), atol=1e-5), "weights are relative"


def test_extremes():
    black, white = torch.zeros(1, 3, 16, 16), torch.ones(1, 3, 16, 16)
    assert float(mse(black, white)) == 1 and float(psnr(black, white)) == 0 and float(ssim(black, white)) < 1e-3
    assert float(mse(white, white)) == 0 and psnr(white, white).isinf() and float(ssim(white, white)) == 1


def test_what_cannot_be_measured_is_refused(pair):
    source, edit = pair
    with pytest.raises(InputError, match="one shape"):
        check_pair(source, edit[:1])
    with pytest.raises(InputError, match="values from"):
        mse(source * 255, edit)
    with pytest.raises(InputError, match=r"The mask has shape \(3, 3\)"):
        mse(source, edit, torch.ones(3, 3))
    with pytest.raises(InputError, match="A mask holds values"):
        mse(source, edit, torch.full((40, 31), 255.0))
    with pytest.raises(InputError, match="SSIM's window"):
        ssim(source[..., :8], edit[..., :8])


def test_every_metric_says_what_it_is():
    """All of it without loading a weight."""
    names = "clip_dir clip_img clip_txt dino_cls dino_patch lpips mse psnr ssim structure"
    assert sorted(METRICS) == names.split()
    for name, metric in METRICS.items():
        facts = metric.facts
        assert facts.name == name and facts.low < facts.high and facts.preprocessing and facts.masking
        assert isinstance(facts.higher_is_better, bool) and facts.weights is None
    with pytest.raises(UnknownNameError, match="Did you mean 'psnr'"):
        METRICS["pnsr"]


def test_scores_carry_their_card(pair):
    record = score(MSE(), *pair).record()
    assert record["name"] == "mse" and record["higher_is_better"] is False
    assert record["values"] == mse(*pair).tolist() and record["backbone"] is None
