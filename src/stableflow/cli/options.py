"""Options that several verbs share."""

from pathlib import Path
from typing import Annotated

import torch
import typer

from stableflow.cli.output import Format
from stableflow.errors import unknown_name
from stableflow.models.base import FlowModel
from stableflow.models.load import load

Model = Annotated[str | None, typer.Option("--model", "-m", help="tiny (bundled), a folder, a file, or a hub id.")]
Prompt = Annotated[str | None, typer.Option("--prompt", "-p", help="The source: what to draw, or what --image shows.")]
Picture = Annotated[Path | None, typer.Option("--image", "-i", help="Edit this picture instead of a drawn one.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")]
Steps = Annotated[int | None, typer.Option("--steps", help="Solver steps [15, with --image the preset's: 50].")]
Guidance = Annotated[float | None, typer.Option("--guidance", help="Of the source [the model's, with --image 1].")]
Height = Annotated[int | None, typer.Option("--height", help="Pixels.")]
Width = Annotated[int | None, typer.Option("--width", help="Pixels.")]
Layers = Annotated[str | None, typer.Option("--layers", help="vital, or numbers such as 0,1,17 [vital].")]
Solver = Annotated[str | None, typer.Option("--solver", help="euler, fixed_point, midpoint, fireflow or heun.")]
Inversion = Annotated[str | None, typer.Option("--inversion", help="aligned or paper [the preset's].")]
Preset = Annotated[
    str | None, typer.Option("--preset", help="exact, balanced or fast: speed against fidelity [exact].")
]
Nudge = Annotated[
    float | None, typer.Option("--nudge", help="Latent nudging of a real picture [the preset's, or 1.15].")
]
Keep = Annotated[str | None, typer.Option("--keep", help="Source keys and values: auto, device, cpu or share.")]
TextLength = Annotated[int | None, typer.Option("--max-sequence-length", help="Text tokens of a prompt.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, mps.")]
Dtype = Annotated[str | None, typer.Option("--dtype", help="float32 or bfloat16 [bfloat16 on an accelerator].")]
Offload = Annotated[str, typer.Option("--offload", help="none, model or group.")]
Components = Annotated[
    str, typer.Option("--components", help="Everything but the transformer, when --model is a single file.")
]
Lora = Annotated[str | None, typer.Option("--lora", help="LoRA weights to load on top.")]
Quantise = Annotated[str | None, typer.Option("--quantise", help="Transformer weights in int8 or fp8, by torchao.")]
Offline = Annotated[bool, typer.Option("--offline", help="Never ask the hub.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
OutputFormat = Annotated[Format, typer.Option("--format", help="text or json.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done and what it costs.")]

FLUX_DEV = "black-forest-labs/FLUX.1-dev"


def open_model(
    name: str, device: str, dtype: str | None, offload: str, components: str, lora: str | None, offline: bool,
    max_sequence_length: int | None, quantise: str | None,
) -> FlowModel:  # fmt: skip
    """Load the model that the options name."""
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype is not None and dtype not in dtypes:
        raise unknown_name("dtype", dtype, dtypes)
    return load(
        name,
        device=device,
        dtype=dtypes[dtype] if dtype else None,
        offload=offload,
        components=components,
        lora=lora,
        offline=offline,
        max_sequence_length=max_sequence_length,
        quantise=quantise,
    )
