"""What the tests of the commands share."""

import numpy as np
from PIL import Image


def picture(path, width=22, height=18):
    ramp = np.linspace(0, 255, width * height * 3).reshape(height, width, 3).astype(np.uint8)
    Image.fromarray(ramp).save(path)
