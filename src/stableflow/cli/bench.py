"""`stableflow bench` and `stableflow report`: editors under settings, judged, as one page."""

import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from stableflow.benchmarks.cases import Case
from stableflow.benchmarks.datasets.coco_nonrigid import load_coco_nonrigid
from stableflow.benchmarks.datasets.flowedit_yaml import load_flowedit_yaml
from stableflow.benchmarks.datasets.pie_bench import load_pie_bench
from stableflow.benchmarks.datasets.scenes import load_scenes
from stableflow.benchmarks.judges import Judge, MetricJudge, SceneJudge
from stableflow.benchmarks.pie_recipe import pie_judges
from stableflow.benchmarks.records import check_job, check_records
from stableflow.benchmarks.run import Benchmark
from stableflow.benchmarks.settings import SETTINGS
from stableflow.benchmarks.summary import failures, markdown, summarise
from stableflow.benchmarks.tasks import ROWS
from stableflow.checks import check_count
from stableflow.cli import options as o
from stableflow.cli.bench_tasks import bench_task
from stableflow.cli.grouped import grouped
from stableflow.cli.output import Format, Reporter
from stableflow.errors import InputError, unknown_name
from stableflow.files import check_writable, write_text_atomic
from stableflow.jobs.cells import Cells
from stableflow.jobs.run import Shard
from stableflow.metrics import (
    LPIPS,
    PSNR,
    SSIM,
    Clip,
    ClipDirection,
    ClipImage,
    ClipText,
    Dino,
    DinoCls,
    DinoPatch,
    Keys,
)
from stableflow.metrics.attributes import AttributeClassifier
from stableflow.models.load import bundled_path
from stableflow.reports.figures import check_figures
from stableflow.reports.page import Axes, write_page

MOST_CASES = 100_000
SCENES = ("scenes", "scenes-real")
FILES = {"coco-nonrigid": load_coco_nonrigid, "pie-bench": load_pie_bench, "flowedit": load_flowedit_yaml}
SCENE_AXES = (Axes("hidden_kept", "edited"), Axes("psnr", "edited"))
PIE_AXES = Axes("ssim_unedit_part", "clip_similarity_target_image_edit_part")
PICTURE_AXES = (Axes("clip_img", "clip_dir"), Axes("dino_patch", "clip_txt"))
SCENE_TABLE = ("edited", "told_kept", "hidden_kept", "psnr", "clip_txt", "clip_img", "clip_dir", "dino_cls")


@grouped
def bench(
    dataset: Annotated[str, typer.Argument(help=f"{', '.join((*SCENES, *FILES))}, or tasks.")],
    model: o.ModelOptions,
    cluster: o.RayOptions,
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder or YAML of the data set; scenes need none.")
    ] = None,
    settings: Annotated[str, typer.Option("--settings", help=f"{', '.join(SETTINGS)}.")] = "layers",
    task: Annotated[str | None, typer.Option("--task", help=f"With tasks: {', '.join(ROWS)}.")] = None,
    real: Annotated[bool, typer.Option("--real/--drawn", help="With tasks: sources are renders, inverted.")] = True,
    count: Annotated[int, typer.Option("--count", "-n", help="Cases, from the first.")] = 64,
    clip: Annotated[
        str | None, typer.Option("--clip", help="CLIP for CLIP_img, _txt, _dir [the bundled, for tiny].")
    ] = None,
    dino: Annotated[
        str | None, typer.Option("--dino", help="DINOv2 for dino_cls, dino_patch [the bundled, for tiny].")
    ] = None,
    lpips: Annotated[
        Path | None,
        typer.Option("--lpips", help="Folder with trunk. and linear.safetensors, for pie-bench."),
    ] = None,
    out: o.Out = Path("out/bench"),
    shard: Annotated[str | None, typer.Option("--shard", help="Do part i of n, as 2/4; same --out for all.")] = None,
    dry_run: o.DryRun = False,
    quiet: o.Quiet = False,
    form: o.OutputFormat = Format.text,
) -> None:
    """Edit every case under every setting and judge the edits. Stopped at any time, the same command goes on."""
    reporter = Reporter(quiet=quiet, form=form)
    name = model.model or "tiny"
    cluster.check()
    if lpips is not None and not lpips.is_dir():
        raise InputError(f"--lpips: there is no folder {lpips}.")
    if data is not None and not data.exists():
        raise InputError(f"--data: there is no file or folder {data}.")
    check_count("--count", count, 1, MOST_CASES)
    part = Shard.parse(shard) if shard else Shard.of_torchrun()
    if cluster.ray and part.count > 1:
        raise InputError("--ray runs all trials; leave --shard out.")
    if dataset == "tasks":
        kept = {"shard": part, "cluster": cluster, "dry_run": dry_run}
        bench_task(task, name, model, count=count, real=real, out=out, reporter=reporter, **kept)
        return
    _cases(dataset, data, count)  # a bad data set is refused before a model is loaded
    SETTINGS[settings]
    if not dry_run:
        check_figures()
        check_writable(out)
    reporter.say(f"loading {name} ...")
    opening = partial(
        open_benchmark,
        name,
        model,
        dataset,
        data,
        count,
        settings,
        clip,
        dino,
        lpips,
        None if dry_run else out.resolve(),
    )
    benchmark = opening()
    if dry_run:
        plan = {
            "cases": len(benchmark.cases),
            "settings": [setting.name for setting in benchmark.settings],
            "trials": len(benchmark.tasks()),
        }
        reporter.result(plan, [f"{key}: {value}" for key, value in plan.items()])
        return
    if cluster.ray:
        with reporter.counter("editing") as told:
            cluster.run(benchmark.tasks(), opening, benchmark.cells, told)
    with reporter.counter("editing") as told:
        finished = benchmark.run(shard=part, told=told)
    if not finished:
        reporter.result({"done": len(benchmark.cells)}, [f"shard {part.number}/{part.count} is done; others are not"])
        return
    command = shlex.join(["stableflow", *sys.argv[1:]])
    _finish(out, benchmark.records(), f"{dataset}, {settings}, {benchmark.model.name}", command, reporter)


def report(
    folder: Annotated[Path, typer.Argument(help="Of a benchmark, finished or not.")],
    form: o.OutputFormat = Format.text,
) -> None:
    """Write the page of a benchmark again from its records, without a model."""
    if not (folder / "job.json").is_file():
        raise InputError(f"{folder} holds no benchmark: job.json is missing. `stableflow bench` makes one.")
    cells = Cells.open(folder)
    check_job(cells.job, str(folder / "job.json"))
    records = check_records(cells.items(), str(folder))
    if not records:
        raise InputError(f"{folder} holds no record yet; run `stableflow bench` with --out {folder}.")
    order = {name: i for i, name in enumerate(cells.job["settings"])}
    records.sort(key=lambda record: (record["case"], order.get(record["setting"], 0)))
    title = f"{cells.job['benchmark']}, {cells.job['model']}"
    _finish(folder, records, title, f"stableflow report {folder.name}", Reporter(quiet=True, form=form))


def open_benchmark(
    name: str,
    loading: o.LoadOptions,
    dataset: str,
    data: Path | None,
    count: int,
    settings: str,
    clip: str | None,
    dino: str | None,
    lpips: Path | None,
    out: Path | None,
) -> Benchmark:
    """Load everything that running trials needs; a worker process does so for itself."""
    cases, judges = _cases(dataset, data, count)
    model = loading.load(name)
    judges += _metrics(name, clip, dino, lpips, offline=loading.offline, dataset=dataset)
    return Benchmark(model, dataset, cases, SETTINGS[settings](model), judges, folder=out)


def _cases(dataset: str, data: Path | None, count: int) -> tuple[list[Case], list[Judge]]:
    if dataset in SCENES:
        cases, edits = load_scenes(count, real=dataset == "scenes-real")
        return cases, [SceneJudge(edits, AttributeClassifier.load(bundled_path("classifier")))]
    if dataset not in FILES:
        raise unknown_name("data set", dataset, [*SCENES, *FILES, "tasks"])
    if data is None:
        raise InputError(f"--data is missing: say where {dataset} is; see docs/concepts/evaluation.md.")
    return FILES[dataset](data)[:count], []


def _metrics(
    model: str, clip: str | None, dino: str | None, lpips: Path | None, *, offline: bool, dataset: str
) -> list[Judge]:
    """CLIP and DINOv2 where encoders are named (`tiny` has its own); PIE-Bench's own recipe for its data."""
    bundled = model == "tiny"
    clip_name = clip or (bundled_path("clip") if bundled else None)
    dino_name = dino or (bundled_path("dinov2") if bundled else None)
    if dataset == "pie-bench":
        if clip_name is None or dino_name is None:
            raise InputError("PIE-Bench's figures need --clip and --dino (a ViT, for the structure distance).")
        weights = LPIPS.load(lpips / "trunk.safetensors", lpips / "linear.safetensors") if lpips else None
        return list(pie_judges(Clip.load(clip_name, offline=offline), Keys.load(dino_name, offline=offline), weights))
    judges: list[Judge] = []
    if dataset not in SCENES:
        judges += [MetricJudge(PSNR(), "outside"), MetricJudge(SSIM(), "outside")]
    if clip_name:
        loaded = Clip.load(clip_name, offline=offline)
        judges += [MetricJudge(metric(loaded)) for metric in (ClipText, ClipImage, ClipDirection)]
    if dino_name:
        encoder = Dino.load(dino_name, offline=offline)
        judges += [MetricJudge(metric(encoder)) for metric in (DinoCls, DinoPatch)]
    return judges


def _finish(out: Path, records: Sequence, title: str, command: str, reporter: Reporter) -> None:
    summary = summarise(records)
    figures = {name for row in summary.values() for name in row}
    axes = [axis for axis in (*SCENE_AXES, *PICTURE_AXES, PIE_AXES) if {axis.kept, axis.edited} <= figures]
    shown = [name for name in summary if name == "vital"] or list(summary)[:1]
    columns = [name for name in SCENE_TABLE if name in figures] or sorted(figures)
    table = markdown(summary, columns)
    write_text_atomic(out / "summary.md", table + "\n")
    files = [out / "summary.md"]
    if axes:
        files.append(write_page(out, records, axes, title=title, command=command, gallery=shown))
    failed = failures(records)
    lines = [table, *(f"{name}: {count} failed" for name, count in failed.items()), *map(str, files)]
    values = {name: {figure: value.mean for figure, value in row.items()} for name, row in summary.items()}
    reporter.result({"summary": values, "failed": failed, "files": [str(file) for file in files]}, lines)
