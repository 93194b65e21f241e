"""Layer sets as files that travel: written from a measurement, pushed to a repository of one's own, pulled again."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from stableflow.errors import InputError, LoadError
from stableflow.models.layer_sets import IN_REPOSITORY, keep
from stableflow.models.load_errors import load_errors
from stableflow.reading import read_json, validated
from stableflow.vital.presets import PAPER_NUDGE_SCALE, Preset
from stableflow.vital.vitality import Vitality

FORMAT = 1
MOST_LAYERS = 10_000
CARD = """---
library_name: stableflow
tags:
- stableflow
- layer-sets
- image-editing
---

# Layers of {name}

Which layers of this checkpoint to inject a source's keys and values in, so that training-free edits keep what their
prompts do not name (vital layers: Avrahami et al., "Stable Flow", CVPR 2025, arXiv:2411.14430). No weights are here:
only small JSON files, one a checkpoint, by the hash of its transformer.

```python
import stableflow as sf

model = sf.load({load!r}, layer_sets={repository!r})  # found by the checkpoint's hash
editor = sf.StableFlow(model)
```

| checkpoint | names | vital layers | of | per task | where from |
|---|---|---|---|---|---|
{rows}
"""


class LayerSetFile(BaseModel):
    """What a layer set's file must hold; it may come from anybody, so all of it is checked."""

    model_config = ConfigDict(extra="ignore", strict=True)
    format: Literal[1]
    checkpoint: str = Field(pattern=r"^[0-9a-f]{16}$")
    names: list[str] = Field(min_length=1, max_length=50)
    num_layers: int = Field(ge=1, le=MOST_LAYERS)
    layers: list[int] = Field(min_length=1, max_length=MOST_LAYERS)
    tasks: dict[str, list[int]] = Field(default_factory=dict, max_length=100)
    source: str = Field(max_length=2000)
    nudge_scale: FiniteFloat = Field(PAPER_NUDGE_SCALE, gt=0, le=100)
    choice: str = Field("gap", max_length=100)
    vitality: dict[str, list[FiniteFloat]] = Field(default_factory=dict, max_length=20)

    def preset(self) -> Preset:
        """Return it as what the package ships for its own checkpoints.

        Raises:
            InputError: A layer is out of range or repeated.
        """
        for name, layers in {"layers": self.layers, **self.tasks}.items():
            if len(set(layers)) != len(layers) or not all(0 <= layer < self.num_layers for layer in layers):
                raise InputError(f"{name}: numbers from 0 to {self.num_layers - 1}, each once, are layers here.")
        return Preset(
            layers=tuple(sorted(self.layers)), num_layers=self.num_layers, names=tuple(self.names),
            checkpoint=self.checkpoint, source=self.source, nudge_scale=self.nudge_scale, choice=self.choice,
            vitality=self.vitality, tasks={task: tuple(sorted(layers)) for task, layers in self.tasks.items()},
        )  # fmt: skip


def read_set(path: Path) -> Preset:
    """Read a layer set's file.

    Raises:
        LoadError: It is damaged or no layer set; names it and says what to do.
    """
    try:
        return validated(LayerSetFile, read_json(path), where=path.name).preset()
    except (LoadError, InputError) as error:
        raise LoadError(f"{path} is no layer set ({error}) Remove it, or pull it again.") from error


def as_file(preset: Preset, tasks: Mapping[str, Sequence[int]] | None = None) -> str:
    """Return a preset as the content of its file.

    Raises:
        InputError: It belongs to no checkpoint: a set holds for one, not for a name.
    """
    if preset.checkpoint is None:
        raise InputError(
            f"The set of {preset.names[0]!r} is known by name alone. Measure it on your copy, which has a hash: "
            f"stableflow vital {preset.names[0]}"
        )
    content = {
        "format": FORMAT, "checkpoint": preset.checkpoint, "names": list(preset.names),
        "num_layers": preset.num_layers, "layers": list(preset.layers), "source": preset.source,
        "tasks": {task: list(layers) for task, layers in (tasks or preset.tasks).items()},
        "nudge_scale": preset.nudge_scale, "choice": preset.choice,
        "vitality": {name: list(values) for name, values in preset.vitality.items()},
    }  # fmt: skip
    return json.dumps(content, indent=1) + "\n"


def of_measurement(vitality: Vitality, *, name: str = "", source: str = "") -> Preset:
    """Return what a measurement chose as a preset.

    Args:
        name: What the checkpoint is called; the measured model's name when empty.
        source: How it was measured; its protocol in a line when empty.
    """
    steps, similarity = vitality.protocol.get("num_steps"), next(iter(vitality.by_similarity))
    how = f"measured on {len(vitality.prompts)} prompts, {steps} steps, by {similarity}"
    return Preset(
        layers=vitality.chosen, num_layers=len(vitality.mean), names=(name or vitality.model,),
        checkpoint=vitality.checkpoint, source=source or how, choice=str(vitality.choice),
        vitality={key: [round(value, 5) for value in scores.nanmean(dim=1).tolist()]
                  for key, scores in vitality.by_similarity.items()},
    )  # fmt: skip


def push(presets: Sequence[Preset], repository: str, *, private: bool = False) -> str:
    """Put layer sets and a card of all that are there into a repository of one's own on the hub, in one commit.

    Args:
        presets: Each of a checkpoint; a file of the same checkpoint is replaced.
        repository: USER/NAME; made if it is not there. The token is the one of `hf auth login` or HF_TOKEN.
        private: Of a repository that is made.

    Returns:
        Its address.

    Raises:
        LoadError: The hub refused; says why.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    files = {f"{IN_REPOSITORY}/{preset.checkpoint}.json": as_file(preset) for preset in presets}
    with load_errors(repository, what="the repository to push to", advice="Check the token: hf auth whoami."):
        hub = HfApi()
        hub.create_repo(repository, private=private, exist_ok=True)
        there = [preset for preset in _sets_on(repository) if preset.checkpoint not in {p.checkpoint for p in presets}]
        files["README.md"] = card([*presets, *there], repository)
        operations = [CommitOperationAdd(name, text.encode()) for name, text in files.items()]
        message = f"Layer sets of {', '.join(preset.names[0] for preset in presets)}"
        return str(hub.create_commit(repository, operations, commit_message=message).repo_url)


def pull(repository: str, *, checkpoint: str | None = None) -> list[Preset]:
    """Fetch a repository's layer sets into the first local folder, where every `load` finds them.

    Args:
        checkpoint: Only the set of this checkpoint.

    Raises:
        LoadError: The repository is not there, or one of its files is no layer set.
    """
    with load_errors(repository, what="the repository to pull from"):
        return [preset for preset in _sets_on(repository, kept=True, checkpoint=checkpoint)]


def _sets_on(repository: str, *, kept: bool = False, checkpoint: str | None = None) -> list[Preset]:
    """The layer sets of a repository, each read before it is kept; one under another's name is refused."""
    from huggingface_hub import HfApi, hf_hub_download

    found: list[Preset] = []
    for name in sorted(HfApi().list_repo_files(repository)):
        if not name.startswith(f"{IN_REPOSITORY}/") or not name.endswith(".json"):
            continue
        if checkpoint is not None and Path(name).stem != checkpoint:
            continue
        file = Path(hf_hub_download(repository, name))
        preset = read_set(file)
        if preset.checkpoint != Path(name).stem:
            raise LoadError(f"{repository}: {name} is the set of {preset.checkpoint}. Tell its owner.")
        if kept:
            keep(file, str(preset.checkpoint))
        found.append(preset)
    return found


def card(presets: Sequence[Preset], repository: str) -> str:
    """Return the repository's README: what is here and how it is used."""
    rows = "\n".join(
        f"| {preset.checkpoint} | {_cell(', '.join(preset.names))} | {_numbers(preset.layers)} | {preset.num_layers} | "
        f"{_cell('; '.join(f'{task}: {_numbers(layers)}' for task, layers in preset.tasks.items())) or '-'} | "
        f"{_cell(preset.source)} |"
        for preset in presets
    )
    first = presets[0].names[0]
    return CARD.format(name=_cell(first), load=first, repository=repository, rows=rows)


def _numbers(layers: Sequence[int]) -> str:
    return ", ".join(map(str, layers))


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())


def described(preset: Preset) -> dict[str, Any]:
    """Return what a user wants to see of a set that was pushed or pulled."""
    return {
        "checkpoint": preset.checkpoint,
        "name": preset.names[0],
        "layers": list(preset.layers),
        "of": preset.num_layers,
    }
