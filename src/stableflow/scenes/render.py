"""From a scene to its picture, and from two scenes to the region in which they differ."""

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from stableflow.scenes.background import draw_background
from stableflow.scenes.canvas import Canvas
from stableflow.scenes.figures import draw_animal, draw_companion, draw_second, draw_subject
from stableflow.scenes.sign import draw_sign
from stableflow.scenes.styles import apply_style
from stableflow.scenes.world import Scene

OVERSAMPLING = 4  # drawn larger and averaged: anti-aliasing


def render_pil(scene: Scene, size: int = 64) -> Image.Image:
    """Draw a scene as an RGB picture of size x size pixels."""
    canvas = Canvas(size * OVERSAMPLING)
    draw_background(canvas, scene)
    draw_companion(canvas, scene)
    draw_subject(canvas, scene)
    draw_second(canvas, scene)
    draw_sign(canvas, scene)
    return apply_style(canvas.image, scene).resize((size, size), Image.Resampling.BOX)


def render(scene: Scene, size: int = 64) -> Float[Tensor, "3 size size"]:
    """Draw a scene as values in [0, 1]."""
    data = torch.frombuffer(bytearray(render_pil(scene, size).tobytes()), dtype=torch.uint8)
    return rearrange(data, "(height width rgb) -> rgb height width", height=size, width=size).float() / 255


def changed_region(a: Scene, b: Scene, size: int = 64, *, tolerance: float = 2 / 255) -> Bool[Tensor, "size size"]:
    """Return where the pictures of two scenes differ: the exact region of an edit."""
    return ((render(a, size) - render(b, size)).abs() > tolerance).any(dim=0)


def silhouette(scene: Scene, size: int = 64) -> Bool[Tensor, "size size"]:
    """Return the pixels that are the animal's and its hat's, more than half of each; not its shadow's."""
    pictures = []
    for blank in (0, 255):  # what lets neither through is the animal
        canvas = Canvas(size * OVERSAMPLING)
        canvas.rectangle(0, 0, 1, 1, (blank, blank, blank))
        draw_animal(canvas, scene)
        pictures.append(canvas.image.resize((size, size), Image.Resampling.BOX).convert("L"))
    black, white = (torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).float() for picture in pictures)
    return (white - black < 128).reshape(size, size)
