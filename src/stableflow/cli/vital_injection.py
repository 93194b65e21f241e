"""`stableflow vital MODEL --by injection`: layers chosen by what injecting them does."""

import json
import shlex
from pathlib import Path
from typing import Any

from stableflow.benchmarks.by_injection import ByInjection, Judging, Pair
from stableflow.benchmarks.injection_judges import by_model, scene_pairs
from stableflow.cli.options import LoadOptions
from stableflow.cli.output import Reporter
from stableflow.errors import InputError
from stableflow.files import check_writable, write_text_atomic
from stableflow.models.bundled import BUNDLED
from stableflow.vital.prompt_sets import EDITS, prompt_set, read_prompts

ARROW = "->"
USUAL = 24


def choose_by_injection(
    model: str, loading: LoadOptions, *, edits: str | None, count: int | None, most: int, judge: str | None,
    racing: bool, steps: int | None, seed: int | None, out: Path, reporter: Reporter,
) -> None:  # fmt: skip
    """Measure, write injection.json, and say which layers were chosen; started again, it goes on."""
    by_truth = judge == "truth" or (judge is None and edits is None and model in BUNDLED)
    if by_truth and (edits is not None or model not in BUNDLED):
        raise InputError("--judge truth is for the bundled model and its own scenes; leave --edits and --judge out.")
    check_writable(out)
    judging: Judging = by_model
    if by_truth:
        pairs, judging = scene_pairs(USUAL if count is None else count)
    else:
        pairs = read_pairs(edits, USUAL if count is None else count, seed or 0)
    job = ByInjection(
        loading.load(model, reporter), pairs, judging, "truth" if by_truth else "model", most=most, racing=racing,
        num_steps=15 if steps is None else steps, folder=out,
    )  # fmt: skip
    with reporter.counter("injecting") as told:
        job.told = told
        found = job.run()
    path = out / "injection.json"
    write_text_atomic(path, json.dumps(found, indent=1) + "\n")
    layers = ",".join(map(str, found["layers"]))  # pyright: ignore[reportArgumentType]: a list, as `run` makes it
    lines = [_line(each) for each in found["sets"]]  # pyright: ignore[reportGeneralTypeIssues]: as above
    told_how = f"chosen: {layers}; stableflow edit -m {shlex.quote(model)} --layers {layers} ..."
    reporter.result(found, [*lines, told_how, str(path)])


def read_pairs(path: str | None, count: int, seed: int) -> list[Pair]:
    """Return edits from a file of lines "source -> edited", or the shipped ones; one file a task, one set a task.

    Raises:
        InputError: A line is no pair.
    """
    lines = prompt_set(EDITS) if path is None else read_prompts(path)
    pairs: list[Pair] = []
    for i, line in enumerate(lines[:count]):
        prompt, arrow, edited = (part.strip() for part in line.partition(ARROW))
        if not (prompt and arrow and edited):
            raise InputError(f"An edit is written as 'a red dog {ARROW} a blue dog', one a line, got {line[:80]!r}.")
        pairs.append(Pair(f"{i:04d}", prompt, edited, seed + i))
    return pairs


def _line(each: dict[str, Any]) -> str:
    low, high = each["interval"]
    layers = ", ".join(map(str, each["layers"]))
    return (
        f"{layers}: edited {each['edited']:.2f}, kept {each['kept']:.2f}, score {each['score']:.3f} "
        f"[{low:.3f}, {high:.3f}] over {each['edits']}"
    )
