"""Stage 1: the autoencoder."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from stableflow.files import replacing_folder
from stableflow.training.data import SceneData
from stableflow.training.loop import Checkpoint, Progress, descend, draw_index, learning_rate, step_generator
from stableflow.training.parallel import World
from stableflow.training.start import adopt

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AutoencoderSettings:
    """Shape and training of the autoencoder.

    Args:
        channels: Of the blocks; their number decides the reduction (three blocks: 4).
        crop: Side of the training crops in pixels for the first `crop_share` of the steps; full pictures afterwards.
    """

    channels: tuple[int, ...] = (24, 48, 96)
    latent_channels: int = 8
    num_steps: int = 4000
    batch: int = 8
    full_batch: int = 4
    crop: int = 32
    crop_share: float = 0.75
    peak: float = 2e-3
    kl_weight: float = 5e-4
    seed: int = 0


def make_autoencoder(settings: AutoencoderSettings, size: int) -> Any:
    blocks = len(settings.channels)
    shape: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * blocks,
        "up_block_types": ("UpDecoderBlock2D",) * blocks,
        "block_out_channels": settings.channels,
    }
    return AutoencoderKL(
        **shape,
        layers_per_block=1,
        latent_channels=settings.latent_channels,
        norm_num_groups=8,
        sample_size=size,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
        scaling_factor=1.0,
        shift_factor=0.0,
    )


def train_autoencoder(
    folder: Path, data: SceneData, settings: AutoencoderSettings, world: World, *, start: Path | None = None
) -> Any:
    """Train or resume; the result is saved to folder / "vae" with the latents' shift and scale in its config.

    Args:
        start: An autoencoder's folder to go on from.
    """
    size = data.images.shape[1]
    torch.manual_seed(settings.seed)
    model = make_autoencoder(settings, size)
    if start is not None:
        adopt(model, start)
    model = model.to(world.device, memory_format=torch.channels_last)
    parameters = list(model.parameters())
    optimiser = torch.optim.AdamW(parameters, lr=settings.peak, betas=(0.9, 0.99), weight_decay=1e-4)
    checkpoint = Checkpoint(
        folder / "autoencoder",
        world,
        lambda: {"model": model.state_dict(), "optimiser": optimiser.state_dict()},
        lambda kept: (model.load_state_dict(kept["model"]), optimiser.load_state_dict(kept["optimiser"])),
    )
    progress = Progress("autoencoder", settings.num_steps, world)
    for step in range(checkpoint.resume(), settings.num_steps):
        generator = step_generator(settings.seed, step, world)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, settings.num_steps, settings.peak, decay_from=0.1)
        images = _batch(data, settings, step, generator).to(world.device, memory_format=torch.channels_last)
        loss = autoencoder_loss(model, images, settings.kl_weight, generator)
        descend(loss, optimiser, parameters, world)
        progress.tell(step, loss.item())
        if (step + 1) % 500 == 0:
            checkpoint.save(step + 1)
    if world.leads:
        _fit_latent_scale(model.eval(), data)
        with replacing_folder(folder / "vae") as temporary:
            model.save_pretrained(temporary)
    return model.eval()


def _batch(data: SceneData, settings: AutoencoderSettings, step: int, generator: torch.Generator) -> Tensor:
    """Crops first, since they give many more steps; then full pictures, whose group-norm statistics count."""
    size = data.images.shape[1]
    if step >= settings.crop_share * settings.num_steps:
        return data.pixels(draw_index(len(data.images), settings.full_batch, generator))
    images = data.pixels(draw_index(len(data.images), settings.batch, generator))
    top, left = torch.randint(size - settings.crop + 1, (2,), generator=generator).tolist()
    return images[:, :, top : top + settings.crop, left : left + settings.crop]


def autoencoder_loss(model: Any, images: Tensor, kl_weight: float, generator: torch.Generator) -> Tensor:
    """Squared and absolute error of the picture, absolute error of its gradients, and a little KL."""
    with torch.autocast(images.device.type, torch.bfloat16):
        mean, log_variance = model.encoder(images).float().chunk(2, dim=1)
        log_variance = log_variance.clamp(-20, 4)
        noise = torch.randn(mean.shape, generator=generator).to(mean.device)
        decoded = model.decoder(mean + noise * (0.5 * log_variance).exp())
    decoded = decoded.float()
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    across = F.l1_loss(decoded.diff(dim=-1), images.diff(dim=-1))
    down = F.l1_loss(decoded.diff(dim=-2), images.diff(dim=-2))
    error = F.mse_loss(decoded, images) + 0.25 * F.l1_loss(decoded, images) + 0.25 * (across + down)
    return error + kl_weight * kl


@torch.no_grad()
def _fit_latent_scale(model: Any, data: SceneData) -> None:
    """Set shift and scale so that latents have mean 0 and deviation 1."""
    images = data.pixels(torch.arange(min(512, len(data.images)))).to(model.device)
    latents = torch.cat([model.encode(part).latent_dist.mean for part in images.split(64)])
    model.register_to_config(scaling_factor=float(1 / latents.std()), shift_factor=float(latents.mean()))


@torch.no_grad()
def reconstruction_psnr(model: Any, data: SceneData, count: int = 256) -> float:
    """Return the mean PSNR in dB of encoding (the mean) and decoding pictures."""
    values = []
    for part in torch.arange(count).split(64):
        images = data.pixels(part).to(model.device)
        decoded = model.decode(model.encode(images).latent_dist.mean).sample.clamp(-1, 1)
        values.append(10 * torch.log10(4 / (decoded - images).square().flatten(1).mean(1)))
    return torch.cat(values).mean().item()
