"""What each editor costs and brings: `python examples/editors_front.py out/front/scenes-real docs/editors.md`.

Reads the records of `stableflow bench scenes-real --settings editors --out out/front/scenes-real`, finished or not (of
cases that every setting has), writes the table into the page and the figure beside it; without a page it prints.
"""

import sys
from collections import defaultdict
from pathlib import Path

from stableflow.benchmarks.equal_rate import kept_at
from stableflow.benchmarks.summary import Figure, Summary, summarise
from stableflow.jobs.cells import Cells, Record
from stableflow.reports.figures import new_figure

RATES = (0.5, 0.7)
COLUMNS = {"edited": "edited", "hidden_kept": "hidden kept", "psnr": "PSNR outside, dB"}
COLOURS = ["#d1495b", "#33475b", "#2e86ab", "#e2a72e", "#4c956c", "#8a5a9e", "#c46a2d", "#5c7f8a"]
STYLES = ["-", "--", ":"]


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
    figure(summary, curves, f"{data}, {count} cases").savefig(picture, dpi=110)
    before, _, rest = page.read_text().partition(begin)
    shown = f"![Edit rate over hidden properties kept, a curve an editor](images/{picture.name})"
    intro = (
        f"{count} cases of `{data}`, checkpoint {cells.job['checkpoint']}, mean [95% interval]; 10 steps of the source "
        "and of every editor."
    )
    page.write_text(f"{before}{begin}\n{intro}\n\n{shown}\n\n{text}\n{end}{rest.partition(end)[2]}")


def complete(records: list[Record], settings: list[str]) -> list[Record]:
    """The records of cases that every setting has been tried on."""
    tried = defaultdict(set)
    for record in records:
        tried[record["case"]].add(record["setting"])
    return [record for record in records if len(tried[record["case"]]) == len(settings)]


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
    """One plot: a line an editor, named at its freest point; bars are 95% intervals."""
    drawn, axes = new_figure(8.6, 6.2)
    ax = axes[0, 0]
    ends = []
    for i, (curve, names) in enumerate(by_curve(summary, curves).items()):
        colour, style = COLOURS[i % len(COLOURS)], STYLES[i // len(COLOURS) % len(STYLES)]
        x, y = ([summary[n][column] for n in names] for column in ("hidden_kept", "edited"))
        at = [[f.mean for f in values] for values in (x, y)]
        ax.errorbar(*at, xerr=bars(x), yerr=bars(y), fmt="o", markersize=3, color=colour, linewidth=0.3, alpha=0.5)
        ax.plot(*at, style, color=colour, linewidth=1.3)
        ends.append((at[0][-1], at[1][-1], curve, colour))
    place(ax, ends)
    ax.set_xlabel("hidden properties kept", fontsize=9)
    ax.set_ylabel("edited as asked", fontsize=9)
    ax.set_title(title, fontsize=9)
    ax.tick_params(labelsize=8)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(linewidth=0.3)
    return drawn


def bars(figures: list[Figure]) -> list[list[float]]:
    return [[f.mean - f.low for f in figures], [f.high - f.mean for f in figures]]


def place(ax, ends: list[tuple[float, float, str, str]]) -> None:
    """Names in a column at the left, in the order of their curves' ends, each with a line to it."""
    ends = sorted(ends, key=lambda end: (end[1], -end[0]))
    left = min(end[0] for end in ends) - 0.24
    heights = [i / max(len(ends) - 1, 1) * 1.02 for i in range(len(ends))]
    for (x, y, name, colour), height in zip(ends, heights):
        ax.annotate(
            name, (x, y), xytext=(left, height), fontsize=7.5, color=colour, va="center",
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.4, "alpha": 0.6},
        )  # fmt: skip
    ax.set_xlim(left - 0.01, 1.02)
    ax.set_ylim(-0.03, 1.06)


if __name__ == "__main__":
    main()
