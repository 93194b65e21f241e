"""Stages 2 and 3: rectified flow from captions, then its classifier-free guidance distilled into the guidance input."""

import copy
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stableflow.errors import LoadError
from stableflow.files import replacing
from stableflow.training.attention import PlainAttention
from stableflow.training.data import SceneData
from stableflow.training.loop import Checkpoint, Progress, draw_index, learning_rate, load_checked, step_generator
from stableflow.training.network import Network, NetworkSettings, pack
from stableflow.training.optimiser import Optimisers
from stableflow.training.parallel import World, average, average_gradients, wait_for_all
from stableflow.training.start import adopt
from stableflow.training.tokens import tokenize

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FlowSettings:
    """Training of the transformer and its text encoders.

    Args:
        batch: A step, over all processes.
        decay_from: Share of the steps after which the learning rate falls.
        shift: Of the logit-normal times towards noise, t -> s t / (1 + (s - 1) t). A picture of n times as many tokens
            is as hard to see through at s = sqrt(n) (Esser et al., arXiv:2403.03206, section 5.3.2); 1 at 64 tokens.
        caption_drop: Share of empty captions, which classifier-free guidance needs.
        ema: Of the weights that are kept.
        checkpoint_every: Steps.
        guidance_range: Scales that distillation teaches.
    """

    network: NetworkSettings = NetworkSettings()
    num_steps: int = 3300
    batch: int = 48
    peak: float = 1.2e-3
    decay_from: float = 0.3
    shift: float = 1.0
    caption_drop: float = 0.1
    ema: float = 0.998
    checkpoint_every: int = 250
    seed: int = 1
    distil_steps: int = 300
    distil_peak: float = 4e-4
    guidance_range: tuple[float, float] = (1.0, 5.0)


def encode_all(autoencoder: Any, data: SceneData, path: Path, world: World) -> Tensor:
    """Return all pictures as packed latents of deviation 1, float16; computed on the first call, a share a process."""
    kept = load_checked(path, mmap=True) if path.exists() else None
    if isinstance(kept, Tensor) and len(kept) == len(data.images):
        return kept
    share = torch.arange(len(data.images)).tensor_split(world.size)[world.rank]
    with replacing(_part(path, world.rank)) as temporary:
        torch.save(_encode(autoencoder, data, share, world.device), temporary)
    wait_for_all(world)
    if world.leads:
        parts = [load_checked(_part(path, rank)) for rank in range(world.size)]
        with replacing(path) as temporary:
            torch.save(torch.cat(parts), temporary)
    wait_for_all(world)
    _part(path, world.rank).unlink()
    return load_checked(path, mmap=True)


def _part(path: Path, rank: int) -> Path:
    return path.with_suffix(f".part{rank}")


@torch.no_grad()
def _encode(autoencoder: Any, data: SceneData, index: Tensor, device: torch.device) -> Tensor:
    config, parts = autoencoder.config, []
    model = autoencoder.to(device, memory_format=torch.channels_last)
    for part in index.split(100):
        with torch.autocast(device.type, torch.bfloat16):
            mean = model.encode(data.pixels(part).to(device)).latent_dist.mean.float()
        parts.append(pack((mean - config.shift_factor) * config.scaling_factor).half().cpu())
    return torch.cat(parts)


class FlowData:
    """Latents with captions, and the batches drawn from them."""

    def __init__(self, latents: Tensor, tokens: Tensor, layers: int = 2):
        self.latents, self.tokens = latents, tokens
        self.empty = torch.tensor(tokenize("", layers))

    def batch(self, settings: FlowSettings, generator: torch.Generator, world: World):
        """Return a process's image tokens, noise, times (logit-normal, shifted) and captions, some of them empty."""
        index = draw_index(len(self.latents), settings.batch // world.size, generator)
        which = torch.randint(self.tokens.shape[1], index.shape, generator=generator)
        captions = self.tokens[index, which].clone()
        captions[torch.rand(index.shape, generator=generator) < settings.caption_drop] = self.empty
        image = self.latents[index].float()
        noise = torch.randn(image.shape, generator=generator)
        t = torch.sigmoid(torch.randn(index.shape, generator=generator))
        t = settings.shift * t / (1 + (settings.shift - 1) * t)
        return tuple(tensor.to(world.device) for tensor in (image, noise, t, captions))


def train_flow(
    folder: Path, data: FlowData, settings: FlowSettings, world: World, *, start: Path | None = None
) -> Network:
    """Stage 2: regress v = noise - image at z_t = (1 - t) image + t noise, guidance input 1; returns the average.

    Args:
        start: A pipeline's folder to go on from.
    """

    def loss_of(network: Network, generator: torch.Generator) -> Tensor:
        image, noise, t, captions = data.batch(settings, generator, world)
        z = torch.lerp(image, noise, t[:, None, None])
        predicted = network(z, t, captions, torch.ones_like(t))
        return (predicted.float() - (noise - image)).square().mean()

    torch.manual_seed(settings.seed)
    network, layers = Network(settings.network), settings.network.scene_layers
    if start is not None:
        adopt(network.transformer, start / "transformer")
        adopt(network.text_encoder, start / "text_encoder", tokenizer=start / "tokenizer", layers=layers)
        adopt(network.text_encoder_2, start / "text_encoder_2", tokenizer=start / "tokenizer_2", layers=layers)
    network = network.to(world.device)
    return _train(network, loss_of, "flow", settings.num_steps, settings.peak, folder, settings, world)


def distil_guidance(folder: Path, teacher: Network, data: FlowData, settings: FlowSettings, world: World) -> Network:
    """Stage 3: a copy learns v_empty + w (v_caption - v_empty) of the teacher as its output at guidance input w."""
    teacher = teacher.eval().requires_grad_(False)

    def loss_of(network: Network, generator: torch.Generator) -> Tensor:
        image, noise, t, captions = data.batch(settings, generator, world)
        z = torch.lerp(image, noise, t[:, None, None])
        low, high = settings.guidance_range
        w = (low + (high - low) * torch.rand(t.shape, generator=generator)).to(t)
        with torch.no_grad():
            empty = data.empty.to(captions).expand_as(captions)
            both = teacher(z.repeat(2, 1, 1), t.repeat(2), torch.cat([captions, empty]), torch.ones_like(t).repeat(2))
            told, untold = both.float().chunk(2)
            target = untold + w[:, None, None] * (told - untold)
        return (network(z, t, captions, w).float() - target).square().mean()

    student = copy.deepcopy(teacher).requires_grad_(True)
    return _train(student, loss_of, "distil", settings.distil_steps, settings.distil_peak, folder, settings, world)


def _train(network: Network, loss_of, stage, num_steps, peak, folder, settings: FlowSettings, world: World) -> Network:
    """Train or resume; returns the exponential average of the weights."""
    network.train().use_attention(PlainAttention)
    averaged = copy.deepcopy(network).requires_grad_(False)
    optimisers = Optimisers(network, peak, world)
    parameters = list(network.parameters())
    checkpoint = Checkpoint(
        folder / stage,
        world,
        lambda: [network.state_dict(), averaged.state_dict(), optimisers.state_dict()],
        lambda kept: [
            network.load_state_dict(kept[0]),
            averaged.load_state_dict(kept[1]),
            optimisers.load(kept[2]),
        ],
        lambda parts: [*parts[0][:2], optimisers.regroup([part[2] for part in parts])],
    )
    progress = Progress(stage, num_steps, world)
    for step in range(checkpoint.resume(), num_steps):
        optimisers.set_rate(learning_rate(step, num_steps, peak, decay_from=settings.decay_from))
        with torch.autocast(world.device.type, torch.bfloat16):
            loss = loss_of(network, step_generator(settings.seed, step, world))
        loss.backward()
        average_gradients(parameters, world)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimisers.step()
        _average(averaged, network, min(settings.ema, (step + 1) / (step + 10)))
        progress.tell(step, average(loss.item(), world) if world.size > 1 else loss.item())
        if (step + 1) % settings.checkpoint_every == 0 or step + 1 == num_steps:
            checkpoint.save(step + 1)
    return averaged.eval()


@torch.no_grad()
def _average(averaged: nn.Module, network: nn.Module, decay: float) -> None:
    torch._foreach_lerp_(list(averaged.parameters()), list(network.parameters()), 1 - decay)


def averaged_weights(folder: Path, stage: str, world: World) -> dict[str, Tensor]:
    """Return the averaged weights of "flow" or of "distil"."""
    found = sorted(folder.glob(f"{stage}.rank0of*.pt"))
    if not found:
        raise LoadError(f"{folder} holds no checkpoint of the {stage} stage; run that first.")
    return load_checked(found[0], world.device)["state"][1]
