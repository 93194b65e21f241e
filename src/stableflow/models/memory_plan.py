"""How a model is laid out to fit a card: what stays on it, in which numbers, and the peak that follows from it.

A picture passes three stages, and offloading keeps only the parts of one of them on the card: the text encoders read
the prompts, the transformer steps, the autoencoder draws. The peak is the largest stage.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from stableflow.checks import check_choice, check_count
from stableflow.errors import InputError
from stableflow.models.families import FAMILIES
from stableflow.models.known import KNOWN, Known, known_by
from stableflow.models.weighing import weigh_folder

BYTES: Mapping[str, float] = {"bf16": 2.0, "int8": 1.01, "nf4": 0.57}
"""Of one weight: int8 has a scale a row, nf4 one of four bytes for every 64 weights, and norms stay in bf16."""

NUMBERS: Mapping[str, tuple[float, float]] = {
    "FluxPipeline": (17.1, 18.4), "FluxKontextPipeline": (17.1, 18.4), "BriaPipeline": (17.1, 18.4),
    "ChromaPipeline": (16.1, 18.5), "Flux2Pipeline": (21.1, 24.6), "Flux2KleinPipeline": (21.1, 24.6),
    "QwenImagePipeline": (15.1, 6.9), "StableDiffusion3Pipeline": (15.0, 5.7), "ZImagePipeline": (15.8, 16.2),
}  # fmt: skip
"""Numbers that live at once in a pass, for each number of an image token and of a text token between layers.

Measured on the real classes at true width (tests); Stable Diffusion 3's is of layers with two attentions, and 14%
too much for those without.
"""

CLASSIFIER_FREE = ("StableDiffusion3Pipeline", "QwenImagePipeline", "ChromaPipeline", "ZImagePipeline", "BriaPipeline")
DECODED = 768  # numbers that live at once in the autoencoder's decoder, for each pixel of a picture
TILE = 512**2  # pixels that are decoded at once where the autoencoder is tiled
TEXT = 512  # text tokens
PIXELS = 16  # on a side of a token
CONTEXT = 600_000_000  # bytes that a process on an accelerator takes before any weight
USABLE = 0.95  # share of a card that a plan may fill; the rest is lost between blocks of memory
BUDGETS: Mapping[str, int] = {name: int(name[:-1]) * 2**30 for name in ("80g", "48g", "24g", "16g", "12g", "8g")}


@dataclass(frozen=True)
class MemoryPlan:
    """One way to lay a model out, with what it takes.

    Args:
        offload: As in `load`.
        transformer, text: Numbers of their weights: bf16, int8 or nf4.
        tiled: Whether the autoencoder works on tiles.
        stages: Bytes on the card by stage: "text", "steps" and "picture".
    """

    offload: str
    transformer: str
    text: str
    tiled: bool
    stages: Mapping[str, int]

    @property
    def peak(self) -> int:
        """Bytes on the card when it is fullest."""
        return max(self.stages.values())

    @property
    def layout(self) -> str:
        """In words."""
        moved = {"none": "all on the card", "model": "one part at a time", "group": "one block at a time"}
        numbers = f"transformer {self.transformer}, text {self.text}"
        return f"{moved[self.offload]}, {numbers}" + (", tiled autoencoder" if self.tiled else "")


WAYS = (
    ("none", "bf16", "bf16"), ("model", "bf16", "bf16"), ("model", "int8", "bf16"), ("model", "int8", "int8"),
    ("model", "nf4", "bf16"), ("model", "nf4", "int8"), ("group", "bf16", "bf16"),
)  # fmt: skip
"""From the fastest and most exact to the smallest; the last one is exact again, and slow."""


def memory_plans(
    known: Known, *, height: int = 1024, width: int = 1024, rows: int = 2, stored: int = 0
) -> Iterator[MemoryPlan]:
    """Yield every way to lay a checkpoint out, in the order of `WAYS`, first whole and then tiled.

    Args:
        height, width: Of the pictures, in pixels.
        rows: Pictures in one pass: an edit and its source are 2.
        stored: Bytes of keys and values that are kept on the card.
    """
    check_count("height", height, PIXELS)
    check_count("width", width, PIXELS)
    check_count("rows", rows)
    for offload, transformer, text in WAYS:
        for tiled in (False, True):
            stages = _stages(known, offload, transformer, text, height, width, rows, tiled)
            stages["steps"] += stored
            yield MemoryPlan(offload, transformer, text, tiled, stages)


@dataclass(frozen=True)
class KVPlan:
    """Where a source's keys and values go, and what of them is on the card.

    Args:
        place: "device", "cpu" or "disk".
        precision: "exact" or "fp8".
        size: Bytes of all.
        on_card: Bytes on the card: all, or those of the step that runs and of the one that is fetched ahead.
    """

    place: str
    precision: str
    size: int
    on_card: int

    @property
    def in_words(self) -> str:
        """As a line."""
        where = {"device": "on the card", "cpu": "in main memory", "disk": "on disk"}[self.place]
        ahead = "" if self.place == "device" else ", fetched a step ahead"
        return f"{self.size / 1e9:.1f} GB {where}{ahead}" + (" in fp8" if self.precision == "fp8" else "")


def kv_bytes(known: Known, *, layers: int, steps: int, height: int, width: int) -> int:
    """Return the bytes of a source's keys and values in bfloat16, at the most: both branches of guidance."""
    branches = 2 if known.guidance != 1 and known.pipeline in CLASSIFIER_FREE else 1
    tokens = (height // PIXELS) * (width // PIXELS)
    return 2 * branches * tokens * known.width * 2 * layers * steps


def kv_plan(size: int, steps: int, room: int, *, main_memory: int, place: str | None = None) -> KVPlan:
    """Return the first way to keep keys and values for which there is room, the exact and near ones first.

    Args:
        size: Bytes of all in bfloat16.
        room: Bytes that the card has left.
        main_memory: Bytes that main memory has free.
        place: "device", "cpu" or "disk" where it is asked for.
    """
    ways = [(where, kind) for kind in ("exact", "fp8") for where in ("device", "cpu")]
    ways += [("disk", "exact"), ("disk", "fp8")]
    plans = [
        KVPlan(where, precision, own, own if where == "device" else -(-2 * own // steps))
        for where, precision in ways
        for own in (size if precision == "exact" else size // 2,)
    ]
    wanted = [plan for plan in plans if place in (None, plan.place)]
    free = {"device": room, "cpu": main_memory, "disk": size}
    return next((p for p in wanted if p.size <= free[p.place] and p.on_card <= room), wanted[-1])


def choose_plan(known: Known, memory: str, device: torch.device | None = None, **run: Any) -> MemoryPlan:
    """Return the first plan that fits.

    Args:
        memory: A card's size, of `BUDGETS`, or "auto": what is free on the device.
        device: For "auto".
        run: As in `memory_plans`.

    Raises:
        InputError: None fits; says what the smallest one takes.
    """
    check_choice("memory", memory, ["auto", *BUDGETS])
    room = int(USABLE * (_free(device) if memory == "auto" else BUDGETS[memory]))
    plans = list(memory_plans(known, **run))
    found = next((plan for plan in plans if plan.peak <= room), None)
    if found is None:
        least = min(plans, key=lambda plan: plan.peak)
        raise InputError(
            f"{known.repository} fits no plan for {room / 1e9:.1f} GB: the smallest takes {least.peak / 1e9:.1f} GB "
            f"({least.layout}). Make smaller pictures, fewer at once, or take a smaller model: `stableflow models`."
        )
    return found


def weighed(name: str | Path) -> Known:
    """Return what a checkpoint weighs: a folder in diffusers' layout by its files, others by short name or hub id.

    Raises:
        InputError: It is none that is known, so that nothing can be planned before it is there.
        LoadError: The folder's files cannot be read.
    """
    if Path(name).is_dir():
        return weigh_folder(Path(name))
    known = known_by(str(name))
    if known is None:
        raise InputError(
            f"No memory plan is known for {name}. They are for folders in diffusers' layout and for "
            f"{', '.join(KNOWN)}; for any other model choose offload and quantise yourself."
        )
    return known


def _stages(
    known: Known, offload: str, transformer: str, text: str, height: int, width: int, rows: int, tiled: bool
) -> dict[str, int]:
    part = {name: 1e9 * billions * BYTES["bf16"] for name, billions in known.billions.items()}
    encoders = {name: size * BYTES[text] / BYTES["bf16"] for name, size in part.items() if name.startswith("text")}
    steps = part["transformer"] * BYTES[transformer] / BYTES["bf16"]
    branches = 2 if FAMILIES[known.pipeline].stacked and known.guidance != 1 else 1
    image, words = NUMBERS[known.pipeline]
    tokens = (height // PIXELS) * (width // PIXELS)
    passing = branches * rows * (image * tokens + words * TEXT) * known.width * 2
    drawing = DECODED * (min(TILE, height * width) if tiled else rows * height * width) * 2
    if offload == "none":
        resident = sum(encoders.values()) + steps + part["vae"] + CONTEXT
        return {"text": int(resident), "steps": int(resident + passing), "picture": int(resident + drawing)}
    if offload == "group":  # the block that runs and the one that is on its way
        steps, encoders = 2 * known.largest * steps, {"text": max(encoders.values()) / 12}
    return {
        "text": int(max(encoders.values()) + CONTEXT),
        "steps": int(steps + passing + CONTEXT),
        "picture": int(part["vae"] + drawing + CONTEXT),
    }


def _free(device: torch.device | None) -> int:
    if device is None or device.type != "cuda":
        raise InputError('memory="auto" asks a CUDA card how much is free. Name a size instead, such as "16g".')
    return torch.cuda.mem_get_info(device)[0]
