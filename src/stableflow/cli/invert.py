"""`stableflow invert`: turn a real picture into a session that can be edited again and again."""

from pathlib import Path

from stableflow.cli import options as o
from stableflow.cli.edit import make_source
from stableflow.cli.output import Format, Reporter
from stableflow.cli.settings import make_settings
from stableflow.editing.methods.stable_flow import StableFlow
from stableflow.errors import InputError
from stableflow.files import check_writable
from stableflow.images import prepare, save_png, to_pil


def invert(
    image: o.Picture = None,
    prompt: o.Prompt = None,
    out: o.Out = Path("out"),
    model: o.Model = None,
    steps: o.Steps = None,
    guidance: o.Guidance = None,
    height: o.Height = None,
    width: o.Width = None,
    layers: o.Layers = None,
    solver: o.Solver = None,
    inversion: o.Inversion = None,
    preset: o.Preset = None,
    nudge: o.Nudge = None,
    keep: o.Keep = None,
    max_sequence_length: o.TextLength = None,
    device: o.Device = "auto",
    dtype: o.Dtype = None,
    offload: o.Offload = "none",
    components: o.Components = o.FLUX_DEV,
    lora: o.Lora = None,
    quantise: o.Quantise = None,
    offline: o.Offline = False,
    quiet: o.Quiet = False,
    form: o.OutputFormat = Format.text,
) -> None:
    """Invert a picture and keep the session; `stableflow edit --session` edits it without inverting again."""
    if image is None:
        raise InputError("--image is missing: name the picture to invert.")
    settings = make_settings(
        {"model": model, "image": image, "prompt": prompt, "steps": steps, "guidance": guidance, "height": height,
         "width": width, "layers": layers, "solver": solver, "inversion": inversion, "preset": preset, "nudge": nudge,
         "keep": keep, "max_sequence_length": max_sequence_length, "to": ["-"]}
    )  # fmt: skip
    reporter = Reporter(quiet=quiet, form=form)
    prepare(image, multiple=1)
    check_writable(out)
    reporter.say(f"loading {settings.model} ...")
    loaded = o.open_model(
        settings.model, device, dtype, offload, components, lora, offline, max_sequence_length, quantise
    )
    editor = StableFlow(loaded, layers=settings.layers, kv_memory=settings.keep, preset=settings.speed())
    source = make_source(editor, settings, reporter)
    source.save(out)
    save_png(out / "reconstruction.png", to_pil(source.images[0], source.alpha))
    reporter.result(
        {"session": str(out), "reconstruction": str(out / "reconstruction.png"), "nfe": source.nfe},
        [
            f"{out}: session, {source.nfe} model evaluations",
            f"{out / 'reconstruction.png'}: what the model makes of it",
        ],
    )
