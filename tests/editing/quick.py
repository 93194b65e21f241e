"""Every editor with few steps, over the tiny random FLUX, and the pictures that it is tried on."""

import numpy as np
import torch
from PIL import Image

from stableflow.editing import EDITORS
from stableflow.sixteen_bit import write_sixteen_bit_png

ALL = [name for name, made in EDITORS.items() if not made.needs_negative]  # FLUX.1 has no negative prompt
WITHIN = [name for name in ALL if name != "move"]  # which acts where its things stand as well
CORE = ["flowedit", "reprompt", "rf-inversion", "rf-solver-edit", "sdedit", "stable-flow"]
PROMPT, EDITS = "a red dog", ["a blue dog", "a red cat sitting on the grass"]
QUICK = {
    "stable-flow": {"layers": [0, 3]},
    "reprompt": {},
    "alike": {"layers": [0, 3]},
    "brushes": {},
    "direct-inversion": {"layers": [0, 3]},
    "edit-friendly": {"num_steps": 4, "skip": 1},
    "dnaedit": {"num_steps": 4, "skip": 1},
    "guide-rescale": {"num_steps": 4, "layers": [0, 3]},
    "polish": {"num_steps": 4, "steps": 2},
    "kv-edit": {},
    "cyclic": {"cycles": 1},
    "dragon": {"num_steps": 4, "layers": [0, 3]},
    "freqedit": {"share": 0.8},
    "sam-flow": {"num_steps": 4, "n_max": 3, "n_avg": 1},
    "lomoe": {},
    "move": {"moves": [{"region": "box:0,2,8,8", "dx": 4.0}], "begin": 1.0},
    "flowedit": {"num_steps": 4, "n_max": 3},
    "rf-solver-edit": {"num_steps": 3, "inject_steps": 1},
}


def make(name, model, **settings):
    few = {"num_steps": 4} if "num_steps" in EDITORS[name].setting_names() else {}
    return EDITORS[name](model, **(QUICK.get(name, few) | settings))


def drawn(editor, **settings):
    return editor.generate(PROMPT, seed=1, num_steps=3, **settings)


def taken(editor, picture, **settings):
    """A real picture as a source, with few steps where its path is asked for."""
    return editor.invert(picture, PROMPT, **({"num_steps": 3} if editor.needs_path else {}), **settings)


def smooth(height, width, channels=3):
    """Numbers in [0, 1] that differ everywhere."""
    y, x = np.meshgrid(np.linspace(0, 1, height), np.linspace(0, 1, width), indexing="ij")
    noise = np.random.default_rng(2).random((height, width, channels)) / 8
    return np.clip(np.stack([x, y, (x + y) / 2, 1 - x / 2], axis=-1)[..., :channels] * 0.8 + noise, 0, 1)


def write_picture(path, kind, height, width):
    """Write a picture of a kind; returns its file."""
    file = path / f"{kind}.{'jpg' if kind == 'jpeg' else 'png'}"
    if kind == "deep":
        write_sixteen_bit_png(file, (smooth(height, width) * 65535).astype(np.uint16))
        return file
    Image.fromarray((smooth(height, width, 4 if kind == "rgba" else 3) * 255).astype(np.uint8)).save(file)
    return file


def gap(first, second):
    return float((first - second).abs().max())


def states(model):
    """What a run must leave in a model: weights and hooks."""
    pipeline = model.pipeline
    weights = {k: v.clone() for k, v in pipeline.transformer.state_dict().items()}
    hooks = sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in pipeline.transformer.modules()
    )
    return weights, hooks


def same(first, second):
    return first[1] == second[1] and all(torch.equal(first[0][name], second[0][name]) for name in first[0])
