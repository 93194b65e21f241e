"""`stableflow bench tasks`: a task of ours against its rivals, over scenes whose truth is known."""

from functools import partial
from pathlib import Path

from stableflow.benchmarks.run import Benchmark
from stableflow.benchmarks.summary import categories, failures, markdown, summarise
from stableflow.benchmarks.tasks import ROWS
from stableflow.cli.options import LoadOptions, RayOptions
from stableflow.cli.output import Reporter
from stableflow.errors import InputError
from stableflow.files import write_text_atomic
from stableflow.jobs.run import Shard
from stableflow.reports.sheet import write_sheet


def bench_task(
    task: str | None, name: str, model: LoadOptions, *, count: int, real: bool, out: Path, shard: Shard,
    cluster: RayOptions, reporter: Reporter, dry_run: bool,
) -> None:  # fmt: skip
    """Run a row of the task benchmark; stopped at any time, the same command goes on."""
    if task is None:
        raise InputError(f"--task is missing: which row, of {', '.join(ROWS)}.")
    row = ROWS[task]
    kind = "real" if real else "drawn"
    reporter.say(f"loading {name} ...")
    opening = partial(open_task, task, name, model, count, real, None if dry_run else out.resolve())
    benchmark = opening()
    ways = benchmark.settings
    if dry_run:
        plan = {"cases": len(benchmark.cases), "ways": [way.name for way in ways], "trials": len(benchmark.tasks())}
        reporter.result(plan, [f"{key}: {value}" for key, value in plan.items()])
        return
    if cluster.ray:
        with reporter.counter("editing") as told:
            cluster.run(benchmark.tasks(), opening, benchmark.cells, told)
    with reporter.counter("editing") as told:
        finished = benchmark.run(shard=shard, told=told)
    if not finished:
        reporter.result({"done": len(benchmark.cells)}, [f"shard {shard.number}/{shard.count} is done; others are not"])
        return
    records = benchmark.records()
    summary, failed = summarise(records), failures(records)
    columns = [figure for figure in row.figures if any(figure in values for values in summary.values())]
    tables = [f"{task}, {kind} sources, {count} cases", markdown(summary, columns)]
    for category in categories(records):
        tables += [f"{category}:", markdown(summarise(records, category=category), columns)]
    goals = ", ".join(f"{figure} {goal:g}" for figure, goal in row.goals.items())
    text = "\n\n".join([*tables, f"Goals: {goals}."]) + "\n"
    write_text_atomic(out / "summary.md", text)
    sheet = write_sheet(out / "sheet.png", records, [way.name for way in ways])
    files = [str(file) for file in (out / "summary.md", sheet) if file is not None]
    values = {way: {figure: value.mean for figure, value in figures.items()} for way, figures in summary.items()}
    lines = [tables[1], *(f"{way}: {number} failed" for way, number in failed.items()), *files]
    reporter.result({"summary": values, "failed": failed, "files": files}, lines)


def open_task(task: str, name: str, model: LoadOptions, count: int, real: bool, out: Path | None) -> Benchmark:
    """Load everything that running the trials of a row needs; a worker process does so for itself."""
    row = ROWS[task]
    found, loaded = row.cases(count, real), model.load(name)
    kind = "real" if real else "drawn"
    return Benchmark(loaded, f"task {task}, {kind}", found.cases, row.ways(loaded, real), found.judges, folder=out)
