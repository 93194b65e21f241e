"""`stableflow edit`: draw or take a picture, and edit it."""

from pathlib import Path
from typing import Annotated, Any

import typer

from stableflow.cli import options as o
from stableflow.cli.output import Format, Reporter
from stableflow.cli.plan import edit_plan
from stableflow.cli.settings import EditSettings, from_recipe, make_settings, read_yaml
from stableflow.editing.methods.stable_flow import StableFlow
from stableflow.editing.result import EditResult
from stableflow.editing.source import Source
from stableflow.errors import InputError
from stableflow.files import check_writable
from stableflow.flow.integrate import StepRecord
from stableflow.flow.solvers import make_solver
from stableflow.images import prepare, read_recipe, save_png, to_pil


def edit(
    model: o.Model = None,
    prompt: o.Prompt = None,
    to: Annotated[list[str] | None, typer.Option("--to", "-t", help="An edited prompt; repeat it for more.")] = None,
    image: o.Picture = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of the drawn source [random].")] = None,
    out: o.Out = Path("out"),
    steps: o.Steps = None,
    guidance: o.Guidance = None,
    edit_guidance: Annotated[
        float | None, typer.Option("--edit-guidance", help="Of the edits [the source's, with --image 3].")
    ] = None,
    height: o.Height = None,
    width: o.Width = None,
    layers: o.Layers = None,
    weight: Annotated[float | None, typer.Option("--weight", help="Of the injection, 0 to 1 [1].")] = None,
    window: Annotated[str | None, typer.Option("--window", help="Inject at these flow times only, as 0.4,1.")] = None,
    solver: o.Solver = None,
    inversion: o.Inversion = None,
    preset: o.Preset = None,
    nudge: o.Nudge = None,
    keep: o.Keep = None,
    max_sequence_length: o.TextLength = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="YAML run file; options win over it.")] = None,
    from_image: Annotated[Path | None, typer.Option("--from-image", help="Repeat the run behind this PNG.")] = None,
    session: Annotated[
        Path | None, typer.Option("--session", help="Keep the source here, or edit the one there.")
    ] = None,
    preview: Annotated[int, typer.Option("--preview", help="Write preview.png every so many steps; 0 never.")] = 0,
    metadata: Annotated[bool, typer.Option(help="Put the recipe into the PNGs.")] = True,
    device: o.Device = "auto",
    dtype: o.Dtype = None,
    offload: o.Offload = "none",
    components: o.Components = o.FLUX_DEV,
    lora: o.Lora = None,
    quantise: o.Quantise = None,
    offline: o.Offline = False,
    dry_run: o.DryRun = False,
    quiet: o.Quiet = False,
    form: o.OutputFormat = Format.text,
) -> None:
    """Edit a drawn picture (--prompt, --seed) or a real one (--image, --prompt): one result for every --to."""
    given = {name: value for name, value in locals().items() if name in EditSettings.model_fields}
    settings = make_settings(
        from_recipe(read_recipe(from_image)) if from_image else {}, read_yaml(config) if config else {}, given
    )
    reporter = Reporter(quiet=quiet, form=form)
    if settings.image is not None:
        prepare(settings.image, multiple=1)  # a bad picture is refused before a model is loaded
    if not dry_run:
        check_writable(out)
    reporter.say(f"loading {settings.model} ...")
    loaded = o.open_model(
        settings.model, device, dtype, offload, components, lora, offline, settings.max_sequence_length, quantise
    )
    editor = StableFlow(loaded, layers=settings.layers, kv_memory=settings.keep, preset=settings.speed())
    if dry_run:
        plan = edit_plan(editor, settings)
        reporter.result(plan, [f"{name}: {value}" for name, value in plan.items()])
        return
    source = _source(editor, settings, session, reporter)
    with reporter.progress("editing") as advance:
        result = editor.edit(
            source,
            settings.to,
            guidance_scale=settings.edit_guidance,
            weight=settings.weight,
            t_window=settings.window,
            callback=_previewing(editor, out, preview, advance),
        )
    _report(result, result.save(out, metadata=metadata), reporter)


def make_source(editor: StableFlow, settings: EditSettings, reporter: Reporter) -> Source:
    """Draw the source, or invert the picture."""
    if settings.image is None:
        with reporter.progress("drawing the source") as advance:
            return editor.generate(
                settings.prompt or "",
                seed=settings.seed,
                num_steps=15 if settings.steps is None else settings.steps,
                guidance_scale=settings.guidance,
                height=settings.height,
                width=settings.width,
                solver=make_solver(settings.solver or "euler"),
                callback=advance,
            )
    with reporter.progress("inverting the picture") as advance:
        source = editor.invert(
            settings.image,
            settings.prompt or "",
            solver=None if settings.solver is None else make_solver(settings.solver),
            num_steps=settings.steps,
            nudge_scale=settings.nudge,
            inversion=settings.inversion,
            guidance_scale=1.0 if settings.guidance is None else settings.guidance,
            height=settings.height,
            width=settings.width,
            callback=advance,
        )
    if settings.image_digest is not None:
        source.fingerprint.require(image=settings.image_digest)
    return source


def _source(editor: StableFlow, settings: EditSettings, session: Path | None, reporter: Reporter) -> Source:
    """The saved session if there is one and it was made with the settings given; else a new one, saved if asked."""
    if session is None or not (session / "source.json").exists():
        source = make_source(editor, settings, reporter)
        if session is not None:
            source.save(session)
        return source
    source = Source.load(session, device=editor.model.device)
    asked = {
        "prompt": settings.prompt, "seed": settings.seed, "num_steps": settings.steps, "height": settings.height,
        "width": settings.width, "guidance_scale": settings.guidance,
    }  # fmt: skip
    if settings.preset is not None and settings.image is not None:
        speed = settings.speed()
        asked["num_steps"] = speed.num_steps if settings.steps is None else settings.steps
        asked["inversion"] = settings.inversion or speed.inversion
    source.fingerprint.require(**{name: value for name, value in asked.items() if value is not None})
    if (settings.image is None) != (source.fingerprint.image is None):
        raise InputError(
            f"The session in {session} is of a {'drawn' if settings.image else 'real'} picture; see --image."
        )
    return source


def _previewing(editor: StableFlow, out: Path, every: int, advance) -> Any:
    def callback(record: StepRecord) -> None:
        advance(record)
        if every and (record.index + 1) % every == 0:
            save_png(out / "preview.png", to_pil(editor.model.decode_latents(record.estimate()[-1:])[0]))

    return callback


def _report(result: EditResult, files: list[Path], reporter: Reporter) -> None:
    lines = [f"{file}: {prompt}" for file, prompt in zip(files[1:], result.prompts)]
    reporter.result(
        {"files": [str(file) for file in files], "recipe": result.recipe},
        [f"{files[0]}: {result.source.fingerprint.prompt} (source)", *lines, f"{files[-2]}: all side by side"],
    )
