"""`stableflow vital`: measure which layers of a model are vital, show and compare what was measured."""

import dataclasses
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from typer.core import TyperGroup

from stableflow.checks import check_choice, check_count
from stableflow.cli import options as o
from stableflow.cli.grouped import grouped
from stableflow.cli.output import Format, Reporter
from stableflow.cli.sharing import pull_sets, push_sets
from stableflow.cli.vital_injection import choose_by_injection
from stableflow.cli.vitality_report import report_vitality, shown
from stableflow.errors import InputError
from stableflow.files import check_writable
from stableflow.images import comparison_grid, save_png, to_pil
from stableflow.interventions.blend import WHOLE_FLOW
from stableflow.jobs.run import Shard
from stableflow.models.base import FlowModel
from stableflow.reports.figures import check_figures, save_figure
from stableflow.reports.vitality import vitality_figure, windows_figure
from stableflow.vital.choice import parse_choice
from stableflow.vital.compare import jaccard, rank_correlation
from stableflow.vital.measure import Measurer, VitalityJob, measured_size
from stableflow.vital.presets import DEFAULT_ENCODER, Preset, all_presets, known_preset
from stableflow.vital.prompt_sets import PROMPT_SETS, prompt_set, read_prompts
from stableflow.vital.protocol import PROTOCOLS, Protocol
from stableflow.vital.similarity import SIMILARITIES
from stableflow.vital.vitality import Vitality
from stableflow.vital.windows import measure_windows


class MeasureByDefault(TyperGroup):
    """`vital MODEL` is short for `vital measure MODEL`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands:
            args = ["measure", *args]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=MeasureByDefault,
    help="Which layers are vital: `vital MODEL` measures, `vital show` and `vital compare` read.",
    no_args_is_help=True,
)


@app.command()
@grouped
def measure(
    model: Annotated[str, typer.Argument(help="tiny (bundled), a folder, a file, or a hub id.")],
    loading: o.LoadOptions,
    cluster: o.RayOptions,
    protocol: Annotated[str, typer.Option("--protocol", help=f"{', '.join(PROTOCOLS)}.")] = "exact",
    prompts: Annotated[
        str | None, typer.Option("--prompts", help=f"{', '.join(PROMPT_SETS)}, or a file [the preset's, or diverse].")
    ] = None,
    count: Annotated[int | None, typer.Option("--count", "-n", help="How many of the prompts [64].")] = None,
    similarity: Annotated[
        list[str] | None, typer.Option("--similarity", "-s", help=f"{', '.join(SIMILARITIES)}; the first chooses.")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option("--encoder", help=f"Folder or hub id [the preset's, or {DEFAULT_ENCODER}].")
    ] = None,
    choice: Annotated[
        str | None, typer.Option("--choose", help="gap, top:COUNT or threshold:VALUE [the preset's, or gap].")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Euler steps [15].")] = None,
    guidance: Annotated[float | None, typer.Option("--guidance", help="[the model's]")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of the first prompt [0].")] = None,
    batch: Annotated[int | None, typer.Option("--batch", help="Prompts that run together [by size].")] = None,
    out: o.Out = Path("out/vital"),
    windows: Annotated[int, typer.Option("--windows", help="Also measure in so many windows of steps.")] = 0,
    strips: Annotated[int, typer.Option("--strips", help="Draw every layer's bypass for so many prompts.")] = 0,
    shard: Annotated[str | None, typer.Option("--shard", help="Do part i of n, as 2/4; same --out for all.")] = None,
    by: Annotated[str, typer.Option("--by", help="bypass, or injection: by what injecting a layer does.")] = "bypass",
    edits: Annotated[
        str | None, typer.Option("--edits", help="By injection: a file of lines 'source -> edited'; one a task.")
    ] = None,
    judge: Annotated[
        str | None, typer.Option("--judge", help="By injection: truth (bundled model) or model, which takes no labels.")
    ] = None,
    most: Annotated[int, typer.Option("--most", help="By injection: layers in the set at most.")] = 2,
    dry_run: o.DryRun = False,
    quiet: o.Quiet = False,
    form: o.OutputFormat = Format.text,
) -> None:
    """Bypass each layer and see how much the picture changes. Stopped at any time, the same command goes on."""
    reporter = Reporter(quiet=quiet, form=form)
    check_choice("--by", by, ["bypass", "injection"])
    check_choice("--judge", judge or "truth", ["truth", "model"])
    cluster.check()
    if by == "injection":
        if cluster.ray:
            raise InputError("--by injection runs in one process; leave --ray out.")
        choose_by_injection(
            model, loading, edits=edits, count=count, most=most, judge=judge, racing=protocol != "exact", steps=steps,
            seed=seed, out=out, reporter=reporter,
        )  # fmt: skip
        return
    settings = _protocol(protocol, count, steps, guidance, seed, batch)
    rule = None if choice is None else parse_choice(choice)
    texts = None if prompts is None else _prompts(prompts)
    part = Shard.parse(shard) if shard else Shard.of_torchrun()
    names = tuple(similarity or ["dino_cls", "dino_patch"])
    _check(names, windows, strips, cluster.ray, settings, part)
    if not dry_run:
        check_figures()
        check_writable(out)
    loaded = loading.load(model, reporter)
    preset = known_preset(loaded)
    texts = texts or prompt_set(preset.prompts if preset else "diverse")
    encoder = encoder or (preset.encoder if preset else DEFAULT_ENCODER)
    job = VitalityJob(
        loaded,
        texts,
        settings,
        [SIMILARITIES[name](encoder, offline=loading.offline) for name in names],
        choice=rule or parse_choice(preset.choice if preset else "gap"),
        folder=None if dry_run else out,
    )
    if dry_run:
        plan = _plan(job, windows)
        reporter.result(plan, [f"{name}: {value}" for name, value in plan.items()])
        return
    if cluster.ray:
        with reporter.counter("measuring") as told:
            opening = partial(open_measurer, model, loading, job.prompts, settings, names, encoder)
            cluster.run(job.tasks(), opening, job.cells, told)
    with reporter.counter("measuring") as told:
        if not job.run(shard=part, told=told):
            reporter.result(
                {"done": len(job.cells)}, [f"shard {part.number}/{part.count} is done; {out} waits for the others"]
            )
            return
    vitality = job.result()
    files = [out / "vitality.json", save_figure(vitality_figure(vitality), out / "vitality.png")]
    vitality.save(files[0])
    files += _strips(job, strips, out)
    if windows:
        with reporter.counter("measuring windows") as told:
            by_time = measure_windows(job, windows, told=told)
        assert by_time is not None
        grid = loaded.time_grid(settings.num_steps, *measured_size(loaded, settings))
        files.append(save_figure(windows_figure(by_time, grid, model=loaded.name), out / "windows.png"))
    report_vitality(vitality, files, reporter, known=preset.vitality if preset and protocol != "exact" else {})


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A vitality.json, or a model's name in the presets.")],
    form: o.OutputFormat = Format.text,
) -> None:
    """Show a measurement, or the preset of a model."""
    reporter = Reporter(quiet=True, form=form)
    if Path(name).is_file():
        report_vitality(Vitality.load(name), [], reporter)
        return
    preset = _preset(name)
    values = dataclasses.asdict(preset)
    lines = [f"{key}: {shown(value)}" for key, value in values.items() if value is not None and key != "vitality"]
    reporter.result(values, [*lines, *(f"vitality by {key}: {shown(row)}" for key, row in preset.vitality.items())])


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="A vitality.json.")],
    b: Annotated[str, typer.Argument(help="Another; of the same number of layers.")],
    form: o.OutputFormat = Format.text,
) -> None:
    """Compare two measurements: rank correlation of all layers, overlap of the chosen sets."""
    first, second = Vitality.load(a), Vitality.load(b)
    values = {
        "rank correlation": round(rank_correlation(first.mean, second.mean), 4),
        "jaccard": round(jaccard(first.chosen, second.chosen), 4),
        "chosen": [list(first.chosen), list(second.chosen)],
        "passes": [first.passes, second.passes],
    }
    Reporter(quiet=True, form=form).result(values, [f"{key}: {shown(value)}" for key, value in values.items()])


def open_measurer(
    model: str,
    loading: o.LoadOptions,
    prompts: tuple[str, ...],
    protocol: Protocol,
    similarities: tuple[str, ...],
    encoder: str,
) -> Measurer:
    """Load everything that a worker process needs."""
    return Measurer(loading.load(model), prompts, protocol, [SIMILARITIES[name](encoder) for name in similarities])


def _protocol(
    name: str, count: int | None, steps: int | None, guidance: float | None, seed: int | None, batch: int | None
) -> Protocol:
    given = {"prompts": count, "num_steps": steps, "guidance_scale": guidance, "first_seed": seed, "batch": batch}
    return dataclasses.replace(PROTOCOLS[name], **{key: value for key, value in given.items() if value is not None})


def _check(names: Sequence[str], windows: int, strips: int, ray: int, settings: Protocol, part: Shard) -> None:
    """Refuse at once what would be refused after hours."""
    for name in names:
        SIMILARITIES[name]
    check_count("--strips", strips, 0)
    check_count(
        "--windows", windows, 0, settings.num_steps, hint=f"There are {settings.num_steps} steps to split into windows."
    )
    if ray and (settings.racing or part.count > 1):
        raise InputError("--ray runs the exact protocol on all cells; leave --shard out and use --protocol exact.")
    if settings.racing and part.count > 1:
        raise InputError("A race decides what to measure as it goes and cannot be sharded; use --protocol exact.")


def _prompts(name: str) -> tuple[str, ...]:
    return prompt_set(name) if name in PROMPT_SETS else read_prompts(name)


def _preset(name: str) -> Preset:
    found = [preset for preset in all_presets() if name in preset.names]
    if not found:
        known = ", ".join(preset.names[0] for preset in all_presets())
        raise InputError(
            f"{name!r} is neither a vitality file nor a model with a preset ({known}). "
            f"Measure it: stableflow vital {name}"
        )
    return found[0]


def _plan(job: VitalityJob, windows: int) -> dict[str, Any]:
    """What the measurement would do; the time is estimated from two passes of the model."""
    layers, prompts, protocol = len(job.model.layers), len(job.prompts), job.protocol
    rows = prompts * (1 + layers * (1 + windows))
    quick = Measurer(job.model, job.prompts, dataclasses.replace(protocol, num_steps=2), [])
    numbers = job.batches()[0]
    quick.draw(numbers, (), WHOLE_FLOW)
    started = time.perf_counter()
    quick.draw(numbers, (), WHOLE_FLOW)
    a_pass = (time.perf_counter() - started) / (2 * len(numbers))
    plan = {
        "model": job.model.name,
        "size": "x".join(map(str, reversed(measured_size(job.model, protocol)))),
        "runs": rows,
        "passes": rows * protocol.num_steps,
        "minutes": round(rows * protocol.num_steps * a_pass / 60, 1),
        "memory, GB": round(_peak_bytes(job.model) / 1e9, 2),
    }
    return plan | ({"note": "an upper bound; a race stops early"} if protocol.racing else {})


def _peak_bytes(model: FlowModel) -> int:
    if model.device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _strips(job: VitalityJob, count: int, out: Path) -> list[Path]:
    """A picture for each of the first prompts: the reference, then each layer bypassed."""
    files = []
    for number in range(min(count, len(job.prompts))):
        sets = [(), *((layer.index,) for layer in job.model.layers)]
        images = [job.measurer.draw((number,), layers, WHOLE_FLOW).images[0] for layers in sets]
        labels = [job.prompts[number], *(f"without layer {layer.index} ({layer.kind})" for layer in job.model.layers)]
        path = out / f"strip-{number + 1}.png"
        save_png(path, comparison_grid([to_pil(image) for image in images], labels, columns=min(len(sets), 10)))
        files.append(path)
    return files


app.command("push")(push_sets)
app.command("pull")(pull_sets)
