"""The measured figures as Markdown."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stableflow.errors import InputError
from stableflow.files import write_text_atomic

BEGIN, END = "<!-- perf: begin -->\n", "<!-- perf: end -->"
LOSS = {"edited": 2, "told_kept": 2, "hidden_kept": 2, "psnr": 1}  # digits
MODELS = {"tiny": "bundled", "mid": "mid-size"}


def tables(found: Mapping[str, Any]) -> str:
    """Return the tables of one run of `measure_here`."""
    regions = [_regions(found["regions"])] if "regions" in found else []
    parts = [_ratios(found), *regions, _losses(found), _overhead(found["overhead"]), _memory(found["memory"])]
    return "\n\n".join(parts) + "\n"


def _ratios(found: Mapping[str, Any]) -> str:
    lines = []
    for model, name in MODELS.items():
        for row in found[model]["rows"]:
            target = "" if row["target"] is None else f"≥ {row['target']:g}"
            times = f"{row['reference']:.2f} s | {row['ours']:.2f} s"
            lines.append(f"| {name} | {row['what']} | {times} | **{row['ratio']:.2f}x** ({_spread(row)}) | {target} |")
        same = "yes" if found[model]["exact"] else "NO"
        lines.append(f"| {name} | further edits are the first to the last bit | | | {same} | yes |")
    return _table(["model", "one edit a request", "published way", "session", "times as fast", "target"], lines)


def _regions(found: Mapping[str, Any]) -> str:
    lines = []
    for name, row in zip(found["differences"], found["rows"], strict=True):
        figures = f"{row['reference']:.2f} s | {row['ours']:.2f} s | **{row['ratio']:.2f}x** ({_spread(row)})"
        memory = f"{_megabytes(found['peak bytes'][name])} of {_megabytes(found['peak bytes']['all'])}"
        lines.append(f"| {name} | {figures} | ≥ {row['target']:g} | {found['differences'][name]:.0e} | {memory} |")
    head = f"region, mid-size, {found['side']} px, {found['steps']} steps"
    return _table(
        [head, "every token", "the region's", "times as fast", "target", "largest difference", "peak memory"], lines
    )


def _spread(row: Mapping[str, Any]) -> str:
    return f"{row['low']:.2f}-{row['high']:.2f}, {row['runs']} runs" if row["runs"] > 1 else "1 run"


def _megabytes(number: float | None) -> str:
    return "?" if number is None else f"{number / 1e6:.0f} MB"


def _losses(found: Mapping[str, Any]) -> str:
    lines = []
    for name, preset in found["presets"].items():
        figures = [_figure(found["loss"][name][key], digits) for key, digits in LOSS.items()]
        iterations = preset["solver"].get("iterations", "-")
        lines.append(f"| {name} | {preset['num_steps']} | {iterations} | {' | '.join(figures)} |")
    heads = ["preset", "steps", "iterations", "edited", "other words kept", "hidden kept", "PSNR outside, dB"]
    return _table(heads, lines)


def _figure(value: Sequence[float], digits: int) -> str:
    return f"{value[0]:.{digits}f} ± {value[1]:.{digits}f}"


def _overhead(found: Mapping[str, float]) -> str:
    step = f"{found['seconds a step'] * 1e3:.0f} ms"
    lines = [f"| {way} | {found[way]:+.1%} |" for way in ("no hooks", "recording", "injecting")]
    return _table([f"mid-size, beside plain diffusers sampling ({step} a step)", "overhead"], lines)


def _memory(found: Mapping[str, Mapping[str, float]]) -> str:
    store, growth = found["keys and values"], found["growth"]
    lines = [
        f"| keys and values held, of computed | {store['ratio']:.3f} ({store['held'] / 1e6:.2f} MB) |",
        f"| growth of the process over {growth['edits']:.0f} edits | {growth['resident'] / 1e6:.2f} MB |",
        f"| growth of Python's memory over 20 edits | {growth['python, 20 edits'] / 1e3:.0f} kB |",
    ]
    return _table(["memory, bundled model", ""], lines)


def _table(heads: Sequence[str], lines: Sequence[str]) -> str:
    return "\n".join([f"| {' | '.join(heads)} |", "|" + "---|" * len(heads), *lines])


def write_between(page: Path, text: str) -> None:
    """Put text between the marks of a page.

    Raises:
        InputError: The page has no such marks.
    """
    content = page.read_text(encoding="utf-8")
    before, begin, rest = content.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError(f"{page} lacks the lines {BEGIN.strip()} and {END}; put them where the tables belong.")
    write_text_atomic(page, before + begin + text + end + after)
