"""`stableflow bench tasks`: a task of ours against its rivals, over scenes whose truth is known."""

from pathlib import Path

from stableflow.benchmarks.run import Benchmark
from stableflow.benchmarks.summary import categories, failures, markdown, summarise
from stableflow.benchmarks.tasks import ROWS
from stableflow.cli.options import LoadOptions
from stableflow.cli.output import Reporter
from stableflow.errors import InputError
from stableflow.files import write_text_atomic
from stableflow.jobs.run import Shard
from stableflow.reports.sheet import write_sheet


def bench_task(
    task: str | None, name: str, model: LoadOptions, *, count: int, real: bool, out: Path, shard: Shard,
    reporter: Reporter, dry_run: bool,
) -> None:  # fmt: skip
    """Run a row of the task benchmark; stopped at any time, the same command goes on."""
    if task is None:
        raise InputError(f"--task is missing: which row, of {', '.join(ROWS)}.")
    row = ROWS[task]
    found = row.cases(count, real)
    loaded = model.load(name, reporter)
    ways = row.ways(loaded, real)
    kind = "real" if real else "drawn"
    benchmark = Benchmark(
        loaded, f"task {task}, {kind}", found.cases, ways, found.judges, folder=None if dry_run else out
    )
    if dry_run:
        plan = {"cases": len(found.cases), "ways": [way.name for way in ways], "trials": len(benchmark.tasks())}
        reporter.result(plan, [f"{key}: {value}" for key, value in plan.items()])
        return
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
