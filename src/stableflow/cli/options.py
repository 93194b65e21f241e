"""Options that several verbs share, in groups."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
import typer

from stableflow.checks import check_count
from stableflow.cli.output import Format, Reporter
from stableflow.errors import InputError, unknown_name
from stableflow.jobs.on_ray import run_on_ray
from stableflow.jobs.run import Results, Task, Told
from stableflow.models.base import FlowModel
from stableflow.models.devices import choose_device
from stableflow.models.load import load, planned

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

Offline = Annotated[bool, typer.Option("--offline", help="Never ask the hub.")]
OutputFormat = Annotated[Format, typer.Option("--format", help="text or json.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done and what it costs.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]


@dataclass(frozen=True)
class LoadOptions:
    """How a model is loaded."""

    title: ClassVar[str] = "Model"

    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, mps.")] = "auto"
    dtype: Annotated[str | None, typer.Option("--dtype", help="float32 or bfloat16 [bfloat16 on an accelerator].")] = (
        None
    )
    offload: Annotated[str, typer.Option("--offload", help="none, model or group.")] = "none"
    components: Annotated[
        str | None,
        typer.Option("--components", help="Where what a file lacks comes from [its model's repository]."),
    ] = None
    parts: Annotated[
        list[str] | None, typer.Option("--part", help="A text encoder's or autoencoder's file; repeat it for more.")
    ] = None
    lora: Annotated[
        list[str] | None, typer.Option("--lora", help="A LoRA to load on top, as file or file:0.8; repeat it for more.")
    ] = None
    quantise: Annotated[str | None, typer.Option("--quantise", help="Transformer weights in int8, fp8 or nf4.")] = None
    quantise_text: Annotated[
        str | None, typer.Option("--quantise-text", help="Text encoders' weights in int8, fp8 or nf4.")
    ] = None
    tiled: Annotated[bool, typer.Option("--tiled", help="Encode and draw pictures tile by tile.")] = False
    memory: Annotated[
        str | None, typer.Option("--memory", help="Offload and quantise to fit a card: 24g, 16g, 12g, 8g or auto.")
    ] = None
    max_sequence_length: Annotated[
        int | None, typer.Option("--max-sequence-length", help="Text tokens of a prompt.")
    ] = None
    layer_sets: Annotated[
        str | None, typer.Option("--layer-sets", help="Hub repository to ask for this checkpoint's vital layers.")
    ] = None
    offline: Offline = False

    def load(self, name: str, reporter: Reporter | None = None) -> FlowModel:
        """Load a model by its name."""
        if self.dtype is not None and self.dtype not in DTYPES:
            raise unknown_name("dtype", self.dtype, DTYPES)
        if reporter is not None:
            reporter.say(f"loading {name} ...")
        return load(
            name,
            device=self.device,
            dtype=DTYPES[self.dtype] if self.dtype else None,
            offload=self.offload,
            components=self.components,
            parts=self.parts or (),
            lora=self.lora,
            offline=self.offline,
            max_sequence_length=self.max_sequence_length,
            quantise=self.quantise,
            layer_sets=self.layer_sets,
            quantise_text=self.quantise_text,
            tiled=self.tiled,
            memory=self.memory,
        )


@dataclass(frozen=True)
class ModelOptions(LoadOptions):
    """Which model, and how it is loaded."""

    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="A name of `stableflow models`, a folder, a file or a hub id [tiny].",
        ),
    ] = None

    def fitted(self, name: str) -> "ModelOptions":
        """Return the options that fit the card of --memory, if it was given."""
        if self.memory is None:
            return self
        taken = any((self.offload != "none", self.quantise, self.quantise_text, self.tiled))
        offload, quantise, text, tiled = planned(name, self.memory, choose_device(self.device), taken=taken)
        return replace(self, memory=None, offload=offload, quantise=quantise, quantise_text=text, tiled=tiled)

    def open(self, reporter: Reporter, **chosen: Any) -> FlowModel:
        """Load the model.

        Args:
            chosen: What a run file or a recipe says instead, by the names in `SHAPING`.
        """
        options = replace(self, **{name: value for name, value in chosen.items() if value is not None})
        return options.load(options.model or "tiny", reporter)


SHAPING = ("model", "dtype", "components", "parts", "lora", "quantise", "quantise_text", "max_sequence_length")
"""Options of the model that shape pictures, and so belong to an order."""


@dataclass(frozen=True)
class SourceOptions:
    """The picture to edit."""

    title: ClassVar[str] = "Source"

    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="The source: what to draw, or what --image shows.")
    ] = None
    image: Annotated[Path | None, typer.Option("--image", "-i", help="Edit this picture instead of a drawn one.")] = (
        None
    )
    seed: Annotated[int | None, typer.Option("--seed", help="Of the drawn source [random].")] = None
    steps: Annotated[int | None, typer.Option("--steps", help="Solver steps [15, with --image the preset's: 50].")] = (
        None
    )
    guidance: Annotated[
        float | None, typer.Option("--guidance", help="Of the source [the model's, with --image 1].")
    ] = None
    height: Annotated[int | None, typer.Option("--height", help="Pixels.")] = None
    width: Annotated[int | None, typer.Option("--width", help="Pixels.")] = None
    solver: Annotated[str | None, typer.Option("--solver", help="euler, fixed_point, midpoint, fireflow or heun.")] = (
        None
    )
    inversion: Annotated[str | None, typer.Option("--inversion", help="aligned or paper [the preset's].")] = None
    preset: Annotated[
        str | None, typer.Option("--preset", help="exact, balanced or fast: speed against fidelity [exact].")
    ] = None
    nudge: Annotated[
        float | None, typer.Option("--nudge", help="Latent nudging of a real picture [the checkpoint's, or 1.15].")
    ] = None
    keep: Annotated[
        str | None, typer.Option("--keep", help="Source keys and values: auto, device, cpu, disk or share.")
    ] = None


@dataclass(frozen=True)
class EditOptions:
    """What to make of it."""

    title: ClassVar[str] = "Edit"

    to: Annotated[list[str] | None, typer.Option("--to", "-t", help="An edited prompt; repeat it for more.")] = None
    task: Annotated[
        str | None, typer.Option("--task", help="What is wanted: `stableflow tasks` lists them, such as remove.")
    ] = None
    editor: Annotated[
        str | None, typer.Option("--editor", "-e", help="A method: `stableflow editors` lists them [stable-flow].")
    ] = None
    set: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of the method, as key=value; repeat it for more.")
    ] = None
    mask: Annotated[
        str | None,
        typer.Option("--mask", help="Where edits may act: a file, box:x,y,w,h, word:cat, change, foreground, ~..."),
    ] = None
    exact: Annotated[
        bool | None, typer.Option("--exact/--held", help="Outside the mask: the given pixels, or the model's [exact].")
    ] = None
    together: Annotated[
        bool | None, typer.Option("--together/--apart", help="One picture of all edits, each in its region [apart].")
    ] = None
    keeping: Annotated[
        list[str] | None,
        typer.Option("--keep-word", help="What must stay, a word of the source's; repeat it for more."),
    ] = None
    reference: Annotated[
        list[Path] | None,
        typer.Option("--reference", help="A picture that the edit reads (kontext, klein, flux2-dev); repeat for more."),
    ] = None
    strength: Annotated[
        str | None,
        typer.Option("--strength", help="0 is the source, 1 the freest edit, auto the least that makes it [own]."),
    ] = None
    negative: Annotated[
        str | None, typer.Option("--negative", help="What guidance leads away from, where the model has it.")
    ] = None
    edit_guidance: Annotated[
        float | None, typer.Option("--edit-guidance", help="Of the edits [the source's, with --image 3].")
    ] = None
    layers: Annotated[
        str | None, typer.Option("--layers", help="vital, all, or numbers such as 0,1,17 [vital; all with a mask].")
    ] = None
    weight: Annotated[
        str | None, typer.Option("--weight", help="Of the injection: 0 to 1, or over flow time as 1:1,0.4:0 [1].")
    ] = None
    window: Annotated[str | None, typer.Option("--window", help="Inject at these flow times only, as 0.4,1.")] = None


@dataclass(frozen=True)
class RayOptions:
    """Whether and where a job runs on Ray."""

    title: ClassVar[str] = "Ray"

    ray: Annotated[int, typer.Option("--ray", help="Run in so many Ray actors.")] = 0
    address: Annotated[
        str | None,
        typer.Option("--address", help="Of a running cluster: auto or host:port [RAY_ADDRESS, or this machine alone]."),
    ] = None
    gpu_type: Annotated[
        str | None, typer.Option("--gpu-type", help="Only on machines with this accelerator, such as A100.")
    ] = None

    def check(self) -> None:
        """Raise InputError unless the options go together."""
        check_count("--ray", self.ray, 0, 1024)
        if not self.ray and (self.address or self.gpu_type):
            raise InputError("--address and --gpu-type are for --ray: say in how many actors, such as --ray 4.")

    def run(self, tasks: Sequence[Task[Any]], opening: Callable[[], Any], cells: Results, told: Told) -> None:
        """Compute the unfinished tasks of a job on Ray."""
        where = {"address": self.address, "gpu_type": self.gpu_type}
        run_on_ray(tasks, opening, cells, workers=self.ray, told=told, **where)


@dataclass(frozen=True)
class OutputOptions:
    """Where results go, and what is said."""

    title: ClassVar[str] = "Output"

    out: Out = Path("out")
    quiet: Quiet = False
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Say what is computed, and show the libraries' messages.")
    ] = False
    form: OutputFormat = Format.text

    def reporter(self) -> Reporter:
        """Return what talks to the user."""
        return Reporter(quiet=self.quiet, form=self.form)
