"""f=4 with 8 channels at 64 pixels against f=8 with 16 channels at 128: both make 64 tokens. Which is the better start?

Run: python examples/compare_autoencoders.py [MINUTES] [FOLDER]
"""

import logging
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from stableflow.training.autoencoder import AutoencoderSettings, reconstruction_psnr, train_autoencoder
from stableflow.training.data import scene_data
from stableflow.training.parallel import World

CANDIDATES = {
    "f=4, 8 channels, 64 px": (64, AutoencoderSettings()),
    "f=8, 16 channels, 128 px": (128, AutoencoderSettings(channels=(24, 48, 96, 96), latent_channels=16)),
}
PROBE = 40  # steps that tell how long one takes


def compare(minutes: float, folder: Path) -> None:
    """Train each for about the same time, its own schedule run to its end, and measure on held-out renders."""
    world = World(0, 1, torch.device("cpu"))
    for name, (size, settings) in CANDIDATES.items():
        place = folder / name.replace(" ", "-").replace(",", "").replace("=", "")
        data = scene_data(place / "data", count=4000, size=size)
        held_out = scene_data(place / "data", count=256, size=size, validation=True)
        started = time.perf_counter()
        train_autoencoder(place / "probe", data, replace(settings, num_steps=PROBE), world)
        steps = int(minutes * 60 / (time.perf_counter() - started) * PROBE)
        started = time.perf_counter()
        model = train_autoencoder(place, data, replace(settings, num_steps=steps), world)
        spent = (time.perf_counter() - started) / 60
        psnr = reconstruction_psnr(model.float(), held_out)
        print(f"{name}: {psnr:.2f} dB after {steps} steps, {spent:.1f} min", flush=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    chosen = Path(sys.argv[2] if len(sys.argv) > 2 else "out/autoencoders")
    compare(float(sys.argv[1]) if len(sys.argv) > 1 else 5.0, chosen)
