"""`stableflow batch`: a table of orders, one row an order, here or on a cluster."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from stableflow.batch.making import RowMaker
from stableflow.batch.results import RowResults
from stableflow.batch.rows import COLUMNS, make_rows, row_tasks
from stableflow.batch.table import read_table
from stableflow.cli import options as o
from stableflow.cli.grouped import grouped
from stableflow.cli.output import Format, Reporter
from stableflow.cli.settings import order_from, read_run_file
from stableflow.files import check_writable, only_process
from stableflow.jobs.run import run_tasks
from stableflow.models.base import FlowModel
from stableflow.order import Order

SOME_FAILED = 1  # exit code
TOGETHER = 16  # rows of one source that a worker takes at a time
SHOWN = 10  # failures that are named on the terminal


@grouped
def batch(
    table: Annotated[Path, typer.Argument(help="A .csv, .jsonl or .parquet file; columns are the settings of a run.")],
    model: o.ModelOptions,
    cluster: o.RayOptions,
    output: o.OutputOptions,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="YAML run file; rows win over it.")] = None,
    dry_run: o.DryRun = False,
) -> None:
    """Make every row of a table, in OUT/ID. Stopped at any time, the same command goes on. Exits 1 if rows failed."""
    cluster.check()
    base = {} if config is None else read_run_file(config)
    base |= {name: value for name in o.SHAPING if (value := getattr(model, name)) is not None}
    rows = make_rows(read_table(table, COLUMNS), lambda values: order_from(base, values), table.resolve().parent)
    results, reporter = RowResults(output.out, rows), output.reporter()
    unmade = results.unmade()
    tasks = row_tasks(unmade, together=TOGETHER if cluster.ray else 1)
    if dry_run:
        plan = {
            "rows": len(rows), "made already": len(rows) - len(unmade), "to make": len(unmade),
            "sources": len({row.source() for row in unmade if row.order}),
            "models": len({row.loading() for row in unmade if row.order}),
            "no orders": [f"{row.id}: {row.error}" for row in rows if row.order is None],
        }  # fmt: skip
        reporter.result(plan, [f"{name}: {value}" for name, value in plan.items()])
        return
    check_writable(output.out)
    opening = partial(open_maker, model)
    with only_process(output.out / ".batch.lock", "a batch"):
        try:
            with reporter.counter("making rows") as told:
                if cluster.ray and tasks:
                    cluster.run(tasks, opening, results, told)
                else:
                    run_tasks(tasks, opening(), results, told=told)
        finally:
            summary = results.write_summary()
    _report(results, summary, {"rows": len(rows), "made already": len(rows) - len(unmade)}, reporter)


def open_maker(model: o.ModelOptions) -> RowMaker:
    """Return what makes rows; a worker process has its own."""
    return RowMaker(partial(load_for, model))


def load_for(model: o.ModelOptions, order: Order) -> FlowModel:
    """Load the model of an order; what the order says wins over the options."""
    chosen = {name: getattr(order, name) for name in o.SHAPING}
    if model.memory is not None:
        model = model.fitted(order.model)
        chosen |= {"quantise": model.quantise, "quantise_text": model.quantise_text}
    return model.open(Reporter(quiet=True, form=Format.text), **chosen)


def _report(results: RowResults, summary: Path, counts: dict[str, Any], reporter: Reporter) -> None:
    failed = results.failed()
    counts |= {"made": counts["rows"] - counts["made already"] - len(failed), "failed": len(failed)}
    lines = [f"{summary}: " + ", ".join(f"{count} {name}" for name, count in counts.items())]
    lines += [f"{record['id']} failed: {record['error']}" for record in failed[:SHOWN]]
    lines += [f"and {len(failed) - SHOWN} more: see {summary}"] if len(failed) > SHOWN else []
    reporter.result({**counts, "summary": str(summary), "failures": {r["id"]: r["error"] for r in failed}}, lines)
    if failed:
        raise typer.Exit(SOME_FAILED)
