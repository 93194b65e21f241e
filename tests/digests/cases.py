"""Edits whose latents are stored: what a change of the code must leave as it is, to the last bit.

`PYTHONPATH=tests python -m digests.cases` from the project's root writes them again: only where a change of the numbers
is wanted, and the commit says why.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from families import FAMILIES
from safetensors.torch import save_file
from torch import Tensor

import stableflow as sf
from stableflow.editing import EDITORS
from stableflow.editing.wishes import Edit

STORED = Path(__file__).with_name("latents.safetensors")
PROMPT = "a red dog standing on the grass at noon"
EDITS = ["a red dog sitting on the grass at noon", "a blue dog standing in the snow at noon"]
FAMILY_PROMPT, FAMILY_EDITS = "a red dog", ["a blue dog", "a red cat on the grass"]
SETTINGS = {
    "sdedit": {"num_steps": 8},
    "flowedit": {"num_steps": 8, "n_max": 6, "n_avg": 2},
    "rf-inversion": {"num_steps": 8},
    "rf-solver-edit": {"num_steps": 6, "inject_steps": 2},
    "ddcm": {"num_steps": 6, "eta": 0.7},
    "edit-friendly": {"num_steps": 8, "skip": 2},
    "edict": {"num_steps": 6},
    "direct-inversion": {},
    "kv-edit": {"fresh": 0.5, "compute": "all"},
    "lomoe": {},
    "brushes": {},
    "pixelman": {"num_steps": 6},
    "dnaedit": {"num_steps": 6, "skip": 1},
    "flowalign": {"num_steps": 6},
    "guide-rescale": {"num_steps": 6, "layers": [0, 3]},
    "polish": {"num_steps": 6, "steps": 3},
    "steerflow": {"num_steps": 6},
    "uniedit": {"num_steps": 6},
    "cyclic": {"cycles": 2},
    "dragon": {"num_steps": 6, "layers": [0, 3]},
    "freqedit": {"share": 0.5},
    "sam-flow": {"num_steps": 6, "n_max": 5, "n_avg": 1},
    "two-models": {"num_steps": 6},
}


@cache
def tiny():
    return sf.load("tiny")


def picture(height: int = 64, width: int = 64) -> Tensor:
    """Smooth colours with a disc, (3, height, width)."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    disc = ((x - 0.4) ** 2 + (y - 0.6) ** 2 < 0.06).float()
    return torch.stack([x, y, (x + y) / 2]) * (1 - 0.7 * disc)


def plain() -> Tensor:
    """One pass of the bundled model: where its bits differ from the stored ones, the machine's arithmetic differs."""
    model = tiny()
    noise = torch.randn(1, *model.latent_shape(64, 64), generator=torch.Generator().manual_seed(0))
    return model.velocity(noise, 0.7, model.encode_prompt([PROMPT]), guidance_scale=3.5)


def edited(name: str, *, real: bool) -> Tensor:
    """Two edits of a drawn source, or of a picture that fills no whole tokens."""
    editor = EDITORS[name](tiny(), **SETTINGS.get(name, {}))
    steps = {"num_steps": 6} if editor.needs_path else {}
    if real:
        source = editor.invert(picture(56, 45), PROMPT, **steps)
    else:
        source = editor.generate(PROMPT, seed=3, num_steps=6)
    return editor.edit(source, EDITS).latents


def injected(**settings) -> Tensor:
    """Stable Flow away from its defaults, on a drawn source."""
    editor = sf.StableFlow(tiny(), kv_memory=settings.pop("kv_memory", "auto"))
    return editor.edit(editor.generate(PROMPT, seed=3, num_steps=6), EDITS, **settings).latents


def preset(name: str) -> Tensor:
    editor = sf.StableFlow(tiny(), preset=name)
    steps = {"num_steps": 8} if name == "exact" else {}
    return editor.edit(editor.invert(picture(), PROMPT, **steps), EDITS).latents


def inverted(inversion: str, solver: str) -> Tensor:
    editor = sf.StableFlow(tiny())
    source = editor.invert(picture(), PROMPT, num_steps=6, inversion=inversion, solver=solver, nudge_scale=1.15)
    return editor.edit(source, EDITS, guidance_scale=[2.0, 3.0]).latents


def of_family(name: str, *, real: bool) -> Tensor:
    family = FAMILIES[name]
    model = sf.wrap(family.make(), name=name, max_sequence_length=family.text_lengths[0])
    editor, size = sf.StableFlow(model, layers=[0, 2]), {"height": family.size, "width": family.size}
    if real:
        source = editor.invert(picture(family.size, family.size), FAMILY_PROMPT, num_steps=3, **size)
    else:
        source = editor.generate(FAMILY_PROMPT, seed=1, num_steps=3, **size)
    return editor.edit(source, FAMILY_EDITS).latents


def leading_away() -> Tensor:
    """Negative-prompt inversion, which the bundled model cannot do."""
    family = FAMILIES["SD3"]
    editor = EDITORS["npi"](sf.wrap(family.make(), name="SD3", max_sequence_length=family.text_lengths[0]), num_steps=4)
    source = editor.invert(picture(family.size, family.size), FAMILY_PROMPT, height=family.size, width=family.size)
    return editor.edit(source, FAMILY_EDITS, guidance_scale=4.0).latents


def fused(name: str) -> Tensor:
    """Two edits in one picture."""
    editor = EDITORS[name](tiny(), **SETTINGS.get(name, {}))
    wishes = [Edit(EDITS[0], "box:0,0,32,64"), Edit(EDITS[1], "box:32,16,32,40")]
    return editor.edit(editor.generate(PROMPT, seed=3, num_steps=6), wishes, together=True).latents


def moved() -> Tensor:
    editor = EDITORS["pixelman"](tiny(), num_steps=6, by=(12, 6))
    return editor.edit(editor.invert(picture(56, 45), PROMPT), EDITS, region="box:6,20,18,24").latents


def mask() -> Tensor:
    half = torch.zeros(8, 8)
    half[:, 3:] = 1.0
    half[2] = 0.5
    return half


def _cases() -> dict[str, Callable[[], Tensor]]:
    cases: dict[str, Callable[[], Tensor]] = {"plain": plain}
    for name in ("stable-flow", "reprompt", *SETTINGS):
        cases[f"{name}/drawn"] = lambda name=name: edited(name, real=False)
        cases[f"{name}/real"] = lambda name=name: edited(name, real=True)
    cases["npi"], cases["moved"] = leading_away, moved
    for name in ("lomoe", "flowedit", "kv-edit"):
        cases[f"{name}/together"] = lambda name=name: fused(name)
    cases["weight and window"] = lambda: injected(weight=0.6, t_window=(0.3, 0.9))
    cases["mask"] = lambda: injected(token_mask=mask(), layers=[3])
    cases["shared"] = lambda: injected(kv_memory="share")
    for name in ("exact", "balanced", "fast"):
        cases[f"preset {name}"] = lambda name=name: preset(name)
    for inversion, solver in (("paper", "fixed_point"), ("paper", "fireflow"), ("aligned", "fixed_point")):
        cases[f"{inversion} {solver}"] = lambda inversion=inversion, solver=solver: inverted(inversion, solver)
    for name in FAMILIES:
        cases[f"family {name}/drawn"] = lambda name=name: of_family(name, real=False)
        cases[f"family {name}/real"] = lambda name=name: of_family(name, real=True)
    return cases


CASES = _cases()

if __name__ == "__main__":
    torch.set_num_threads(1)
    save_file({name: make().contiguous() for name, make in CASES.items()}, STORED)
