"""A chart of vitality as a picture."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

CHOSEN, OTHER, INK = (200, 80, 40), (150, 160, 170), (40, 40, 40)
HEIGHT, MARGIN, BAR = 240, 30, 16


def draw_bars(vitality: Float[Tensor, " layers"], chosen: Sequence[int]) -> Float[Tensor, "1 height width 3"]:
    """Return one bar a layer, the chosen ones coloured and numbered."""
    chart = Image.new("RGB", (2 * MARGIN + BAR * len(vitality), HEIGHT), "white")
    draw = ImageDraw.Draw(chart)
    top = max(float(vitality.max()), 1e-6)
    base = HEIGHT - MARGIN
    draw.text((MARGIN, 6), f"vitality of each layer, highest {top:.3f}", fill=INK)
    for layer, score in enumerate(vitality.tolist()):
        left, height = MARGIN + BAR * layer, max(0.0, score) / top * (base - MARGIN)
        draw.rectangle((left + 2, base - height, left + BAR - 3, base), fill=CHOSEN if layer in chosen else OTHER)
        if layer in chosen or layer % 5 == 0:
            draw.text((left + 2, base + 4), str(layer), fill=INK)
    pixels = torch.frombuffer(bytearray(chart.tobytes()), dtype=torch.uint8).reshape(1, HEIGHT, chart.width, 3)
    return pixels.float() / 255
