"""What `stableflow vital` prints of a measurement."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from stableflow.cli.output import Reporter
from stableflow.vital.choice import choose
from stableflow.vital.compare import rank_correlation
from stableflow.vital.vitality import Vitality


def report_vitality(
    vitality: Vitality, files: list[Path], reporter: Reporter, *, known: Mapping[str, Sequence[float]] | None = None
) -> None:
    """Print a measurement; `known` is what the exact protocol found on this checkpoint, if it is known."""
    low, high = vitality.interval()
    stability, chosen = vitality.stability(), vitality.chosen
    rows = [
        {
            "layer": layer,
            "kind": vitality.kinds[layer],
            "vitality": round(float(vitality.mean[layer]), 4),
            "interval": [round(float(low[layer]), 4), round(float(high[layer]), 4)],
            "stability": round(float(stability[layer]), 3),
            "chosen": layer in chosen,
            "flag": vitality.flags.get(layer, ""),
        }
        for layer in range(len(vitality.mean))
    ]
    others = {name: list(choose(s.nanmean(dim=1), vitality.choice)) for name, s in vitality.by_similarity.items()}
    lines = [
        f"{row['layer']:3d} {row['kind']}  {row['vitality']:.3f}  [{row['interval'][0]:.3f}, {row['interval'][1]:.3f}]"
        f"  in the set {row['stability']:.0%}{'  *' if row['chosen'] else ''}  {row['flag']}".rstrip()
        for row in rows
    ]
    lines += [f"vital by {vitality.choice}, {name}: {shown(layers)}" for name, layers in others.items()]
    correlations = {
        name: round(rank_correlation(scores.nanmean(dim=1), torch.tensor(known[name])), 4)
        for name, scores in vitality.by_similarity.items()
        if known and name in known
    }
    lines += [f"rank correlation with the exact protocol, {name}: {value}" for name, value in correlations.items()]
    lines += [f"{vitality.passes} passes over {len(vitality.prompts)} prompts", *map(str, files)]
    values = {
        "layers": rows,
        "chosen": others,
        "passes": vitality.passes,
        "rank_correlation_with_exact": correlations,
        "files": [str(file) for file in files],
    }
    reporter.result(values, lines)


def shown(value: Any) -> str:
    """Return a value for a line of text."""
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
