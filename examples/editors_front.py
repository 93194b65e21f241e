"""What each editor costs and brings: `python examples/editors_front.py out/front/scenes-real docs/editors.md`.

Reads the records of `stableflow bench scenes-real --settings editors --out out/front/scenes-real`, finished or not,
writes the table into the page and the figure beside it; without a page it prints.
"""

import sys
from collections import defaultdict
from pathlib import Path

from stableflow.benchmarks.equal_rate import kept_at
from stableflow.benchmarks.summary import Figure, Summary, summarise
from stableflow.jobs.cells import Cells, Record
from stableflow.reports.figures import new_figure

RATES = (0.7, 0.9)
ENOUGH = 0.9  # of the settings: a case counts, and an editor that lacks it is left out until it has it
COLUMNS = {"edited": "edited", "hidden_kept": "hidden kept", "psnr": "PSNR outside, dB"}
COLUMNS_SHOWN = 5


def main() -> None:
    folder = Path(sys.argv[1])
    cells = Cells.open(folder)
    curves = {name: setting["curve"] for name, setting in cells.job["settings"].items()}
    records = complete(list(cells.values()), list(curves))
    summary = summarise(sorted(records, key=lambda r: (r["case"], list(curves).index(r["setting"]))))
    count = len({record["case"] for record in records})
    text = "\n".join([*front(summary, curves, passes_of(records)), "", *points(summary)])
    if len(sys.argv) == 2:
        print(f"{count} cases\n{text}")
        return
    page, data = Path(sys.argv[2]), cells.job["benchmark"]
    begin, end = f"<!-- front: {data} -->", f"<!-- end of front: {data} -->"
    picture = page.parent / "images" / f"front-{data}.png"
    figure(summary, curves, f"{data}, {count} cases").savefig(picture, dpi=95)
    before, _, rest = page.read_text().partition(begin)
    shown = f"![Edit rate over hidden properties kept, a curve an editor](images/{picture.name})"
    intro = (
        f"{count} cases of `{data}`, checkpoint {cells.job['checkpoint']}, mean [95% interval]; 10 steps of the source "
        "and of every editor."
    )
    page.write_text(f"{before}{begin}\n{intro}\n\n{shown}\n\n{text}\n{end}{rest.partition(end)[2]}")


def complete(records: list[Record], settings: list[str]) -> list[Record]:
    """The records of cases that nearly every setting was tried on, and of the settings that were tried on all these."""
    tried, cases = defaultdict(set), defaultdict(set)
    for record in records:
        tried[record["case"]].add(record["setting"])
    done = {case for case, names in tried.items() if len(names) >= ENOUGH * len(settings)}
    for record in records:
        cases[record["setting"]].add(record["case"])
    return [record for record in records if record["case"] in done and done <= cases[record["setting"]]]


def passes_of(records: list[Record]) -> dict[str, float]:
    """Mean passes of the transformer an edit, by setting."""
    counts = defaultdict(list)
    for record in records:
        if "nfe" in record:
            counts[record["setting"]].append(record["nfe"]["edit"])
    return {name: sum(values) / len(values) for name, values in counts.items()}


def by_curve(summary: Summary, curves: dict[str, str]) -> dict[str, list[str]]:
    """The settings of every curve, in order; the two that stand alone are curves of one point."""
    joined = defaultdict(list)
    for name in summary:
        joined[curves[name] or name].append(name)
    return dict(joined)


def front(summary: Summary, curves: dict[str, str], passes: dict[str, float]) -> list[str]:
    """A row an editor: the best that it keeps at two edit rates, and its freest setting."""
    header = ["editor", *(f"hidden kept at {rate:.0%} edited" for rate in RATES), "most edited", "passes"]
    rows = []
    for curve, names in by_curve(summary, curves).items():
        line = [(0.0, 1.0), *((summary[n]["edited"].mean, summary[n]["hidden_kept"].mean) for n in names)]
        kept = [kept_at(line, rate) for rate in RATES]
        most = max((summary[n]["edited"] for n in names), key=lambda figure: figure.mean)
        walked = [passes[n] for n in names]
        rows.append((kept, [curve, *map(shown, kept), str(most), f"{min(walked):.0f} to {max(walked):.0f}"]))
    rows.sort(key=lambda row: [-1.0 if kept is None else kept for kept in reversed(row[0])], reverse=True)
    return table(header, [cells for _, cells in rows])


def points(summary: Summary) -> list[str]:
    rows = [[name, *(str(row[column]) for column in COLUMNS)] for name, row in summary.items()]
    head = "<details><summary>Every point</summary>"
    return [head, "", *table(["setting", *COLUMNS.values()], rows), "", "</details>"]


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in [header, ["---"] * len(header), *rows]]


def shown(kept: float | None) -> str:
    return "" if kept is None else f"{kept:.2f}"


def figure(summary: Summary, curves: dict[str, str], title: str):
    """A panel an editor: its curve with 95% intervals over all the others in grey; up and right is better."""
    lines = by_curve(summary, curves)
    rows = -(-len(lines) // COLUMNS_SHOWN)
    drawn, axes = new_figure(1.9 * COLUMNS_SHOWN, 1.75 * rows + 0.3, rows=rows, columns=COLUMNS_SHOWN)
    for ax, name in zip(axes.flat, [*lines, *[None] * axes.size]):
        if name is None:
            ax.set_axis_off()
            continue
        for names in lines.values():
            ax.plot(*means(summary, names), color="#cfd6dc", linewidth=0.7, zorder=1)
        x, y = ([summary[n][column] for n in lines[name]] for column in ("hidden_kept", "edited"))
        ax.errorbar(
            *means(summary, lines[name]), xerr=bars(x), yerr=bars(y),
            fmt="o-", markersize=3, color="#d1495b", linewidth=1.4, elinewidth=0.5, zorder=2,
        )  # fmt: skip
        ax.set(xlim=(0.38, 1.03), ylim=(-0.03, 1.06), xticks=(0.5, 0.75, 1), yticks=(0, 0.5, 1))
        ax.set_title(name, fontsize=8, pad=2)
        ax.tick_params(labelsize=6)
        ax.grid(linewidth=0.3)
    drawn.supxlabel("hidden properties kept", fontsize=8)
    drawn.supylabel("edited as asked", fontsize=8)
    drawn.suptitle(title, fontsize=9)
    return drawn


def means(summary: Summary, names: list[str]) -> tuple[list[float], list[float]]:
    return [summary[n]["hidden_kept"].mean for n in names], [summary[n]["edited"].mean for n in names]


def bars(figures: list[Figure]) -> list[list[float]]:
    return [[f.mean - f.low for f in figures], [f.high - f.mean for f in figures]]


if __name__ == "__main__":
    main()
