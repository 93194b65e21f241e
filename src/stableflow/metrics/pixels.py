"""MSE, PSNR and SSIM: how much the pixels differ, inside a mask if one is given."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from stableflow.errors import InputError
from stableflow.metrics.card import METRICS, Mask, MetricCard, PromptPairs
from stableflow.metrics.inputs import check_pair, mask_weights, masked_mean
from stableflow.types import Images

WINDOW, SIGMA = 11, 1.5  # pixels, of the gaussian that SSIM's local statistics are taken with
C1, C2 = 0.01**2, 0.03**2  # SSIM's constants for values in [0, 1]


def mse(source: Images, edit: Images, mask: Mask | None = None) -> Float[Tensor, " batch"]:
    """Return the mean squared difference over channels and, if given, the mask."""
    check_pair(source, edit)
    return masked_mean((source.float() - edit.float()).square(), mask_weights(mask, source))


def psnr(source: Images, edit: Images, mask: Mask | None = None) -> Float[Tensor, " batch"]:
    """Return -10 log10 MSE in dB; infinite where the pictures are equal."""
    return -10 * mse(source, edit, mask).log10()


def ssim(source: Images, edit: Images, mask: Mask | None = None) -> Float[Tensor, " batch"]:
    """Return the mean of the SSIM map over channels and places.

    Places are those whose whole window lies inside the picture, so the outer 5 pixels are centres of none; a mask
    weights the places by its value at their centre.

    Source: Wang et al., "Image quality assessment: from error visibility to structural similarity" (2004), equation 13,
    on each of the colour channels.
    """
    check_pair(source, edit)
    weights = mask_weights(mask, source)
    border = WINDOW // 2
    inner = None if weights is None else weights[..., border:-border, border:-border]
    return masked_mean(ssim_map(source, edit), inner)


def ssim_map(source: Images, edit: Images) -> Float[Tensor, "batch 3 inner_height inner_width"]:
    """Return SSIM at every place whose window lies inside the picture."""
    if min(source.shape[-2:]) < WINDOW:
        raise InputError(f"SSIM's window has {WINDOW} pixels on a side; the pictures are {tuple(source.shape[-2:])}.")
    x, y = source.float(), edit.float()
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x, variance_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
    contrast_structure = (2 * covariance + C2) / (variance_x + variance_y + C2)
    return luminance * contrast_structure


def _blur(images: Images) -> Float[Tensor, "batch 3 inner_height inner_width"]:
    places = torch.arange(WINDOW, device=images.device) - WINDOW // 2
    kernel = torch.exp(-(places**2) / (2 * SIGMA**2))
    kernel = kernel / kernel.sum()
    single = rearrange(images, "batch channels height width -> (batch channels) 1 height width")
    blurred = F.conv2d(F.conv2d(single, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))
    return rearrange(blurred, "(batch channels) 1 height width -> batch channels height width", channels=3)


@METRICS.register("mse")
class MSE:
    """`mse` as a metric."""

    facts: ClassVar = MetricCard("mse", 0.0, 1.0, False, "none", "mean over the mask")

    @property
    def card(self) -> MetricCard:
        return self.facts

    def __call__(
        self, source: Images, edit: Images, *, prompts: PromptPairs | None = None, mask: Mask | None = None
    ) -> Float[Tensor, " batch"]:
        return mse(source, edit, mask)


@METRICS.register("psnr")
class PSNR:
    """`psnr` as a metric."""

    facts: ClassVar = MetricCard("psnr", 0.0, float("inf"), True, "none", "of the mean squared error over the mask")

    @property
    def card(self) -> MetricCard:
        return self.facts

    def __call__(
        self, source: Images, edit: Images, *, prompts: PromptPairs | None = None, mask: Mask | None = None
    ) -> Float[Tensor, " batch"]:
        return psnr(source, edit, mask)


@METRICS.register("ssim")
class SSIM:
    """`ssim` as a metric."""

    facts: ClassVar = MetricCard(
        "ssim", -1.0, 1.0, True, "none; gaussian window of 11 pixels, sigma 1.5", "mean of the SSIM map over the mask"
    )

    @property
    def card(self) -> MetricCard:
        return self.facts

    def __call__(
        self, source: Images, edit: Images, *, prompts: PromptPairs | None = None, mask: Mask | None = None
    ) -> Float[Tensor, " batch"]:
        return ssim(source, edit, mask)
