"""After the autoencoder: the decoder trained on, the encoder frozen, so that the latents stay what they are."""

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


@dataclass(frozen=True)
class DecoderSettings:
    """Training of the decoder on full pictures."""

    num_steps: int = 900
    batch: int = 8
    peak: float = 1e-3
    seed: int = 3


def train_decoder(folder: Path, data: SceneData, settings: DecoderSettings, world: World) -> Any:
    """Train or resume; writes the autoencoder with the new decoder to folder / "vae-final"."""
    model: Any = AutoencoderKL.from_pretrained(folder / "vae")
    model = model.to(world.device, memory_format=torch.channels_last)
    model.encoder.requires_grad_(False)
    parameters = list(model.decoder.parameters())
    optimiser = torch.optim.AdamW(parameters, lr=settings.peak, betas=(0.9, 0.99), weight_decay=0.0)
    checkpoint = Checkpoint(
        folder / "decoder",
        world,
        lambda: [model.decoder.state_dict(), optimiser.state_dict()],
        lambda kept: [model.decoder.load_state_dict(kept[0]), optimiser.load_state_dict(kept[1])],
    )
    progress = Progress("decoder", settings.num_steps, world)
    for step in range(checkpoint.resume(), settings.num_steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, settings.num_steps, settings.peak, decay_from=0.2)
        index = draw_index(len(data.images), settings.batch, step_generator(settings.seed, step, world))
        images = data.pixels(index).to(world.device, memory_format=torch.channels_last)
        loss = _loss(model, images)
        descend(loss, optimiser, parameters, world)
        progress.tell(step, loss.item())
        if (step + 1) % 250 == 0:
            checkpoint.save(step + 1)
    if world.leads:
        with replacing_folder(folder / "vae-final") as temporary:
            model.eval().save_pretrained(temporary)
    return model.eval()


def _loss(model: Any, images: Tensor) -> Tensor:
    """Squared error, which PSNR counts, and a little absolute error; decoded from the mean, as in use."""
    with torch.autocast(images.device.type, torch.bfloat16):
        with torch.no_grad():
            mean = model.encode(images).latent_dist.mean
        decoded = model.decoder(mean)
    return F.mse_loss(decoded.float(), images) + 0.05 * F.l1_loss(decoded.float(), images)
