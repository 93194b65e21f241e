"""Where the animal of a synthetic scene is, found in any picture."""

from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stableflow.errors import LoadError
from stableflow.files import replacing_folder
from stableflow.types import Images

SIDE = 64  # pixels that it works at


class FigureFinder(nn.Sequential):
    """A small network that tells the animal's pixels, hat included and shadow not, from all others."""

    def __init__(self) -> None:
        def block(channels: int, out: int, dilation: int = 1) -> nn.Sequential:
            convolution = nn.Conv2d(channels, out, 3, padding=dilation, dilation=dilation)
            return nn.Sequential(convolution, nn.BatchNorm2d(out), nn.ReLU())

        wide = [block(32, 32, dilation) for dilation in (1, 2, 4, 8)]
        down, up = nn.Conv2d(16, 32, 2, 2), nn.Upsample(scale_factor=2, mode="bilinear")
        super().__init__(block(3, 16), down, *wide, up, block(32, 16), nn.Conv2d(16, 1, 1))

    @torch.no_grad()
    def masks(self, images: Images) -> Bool[Tensor, "batch height width"]:
        """Return the animal's pixels in pictures in [0, 1] of any size."""
        size = images.shape[-2:]
        seen = F.interpolate(images, size=(SIDE, SIDE), mode="bilinear", antialias=True)
        return F.interpolate(self(seen * 2 - 1), size=size, mode="bilinear")[:, 0] > 0

    def centres(self, images: Images) -> Float[Tensor, "batch 2"]:
        """Return x and y of the middle of the animal's pixels; NaN where there is none."""
        masks = self.masks(images).float()
        height, width = masks.shape[1:]
        y, x = torch.arange(height).float(), torch.arange(width).float()
        total = masks.sum((1, 2))
        return torch.stack([(masks.sum(1) @ x) / total, (masks.sum(2) @ y) / total], dim=1)

    def save(self, folder: Path) -> None:
        """Write model.safetensors in float16."""
        halves = {name: t.half() if t.is_floating_point() else t for name, t in self.state_dict().items()}
        with replacing_folder(folder) as temporary:
            save_file(halves, temporary / "model.safetensors")

    @staticmethod
    def load(folder: Path) -> "FigureFinder":
        """Read what `save` wrote, ready to be used."""
        try:
            state = load_file(folder / "model.safetensors")
            model = FigureFinder()
            model.load_state_dict({name: t.float() if t.is_floating_point() else t for name, t in state.items()})
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise LoadError(f"{folder} holds no figure finder: {error}") from error
        return model.eval()


def overlap(a: Bool[Tensor, "height width"], b: Bool[Tensor, "height width"]) -> float:
    """Return intersection over union; 0 where both are empty."""
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 0.0
