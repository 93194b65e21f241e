"""Running a benchmark: every case under every setting, as resumable cells."""

import dataclasses
import hashlib
import json
import re
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from stableflow.benchmarks.cases import Case
from stableflow.benchmarks.following import DRAWN_AGAIN, take_turns
from stableflow.benchmarks.judges import Judge
from stableflow.benchmarks.settings import Setting
from stableflow.editing import EDITORS
from stableflow.editing.fingerprint import digest
from stableflow.editing.methods.stable_flow import StableFlow
from stableflow.editing.source import Source
from stableflow.editing.versions import versions
from stableflow.errors import InputError, StableFlowError
from stableflow.flow.solvers import make_solver
from stableflow.images import save_png, to_pil
from stableflow.jobs.cells import Cells, Record
from stableflow.jobs.run import Shard, Task, Told, run_tasks
from stableflow.models.base import FlowModel
from stableflow.region import Region


@dataclass(frozen=True, eq=False)
class Trial:
    """One case under one setting."""

    case: Case
    setting: Setting

    @property
    def key(self) -> str:
        return f"{_file_name(self.case.id)}.{_file_name(self.setting.name)}"


class Benchmark:
    """Cases under settings, judged.

    Args:
        name: Of the data set.
        judges: Each adds its figures to every record.
        folder: For records and pictures; a killed run goes on where it was, and a later one may bring more cases and
            settings. None keeps records only, in memory.

    Raises:
        InputError: There is nothing to run, names repeat, or the folder holds another benchmark.
    """

    def __init__(
        self,
        model: FlowModel,
        name: str,
        cases: Sequence[Case],
        settings: Sequence[Setting],
        judges: Sequence[Judge],
        *,
        folder: Path | None = None,
    ):
        for what, names in (("case", [case.id for case in cases]), ("setting", [s.name for s in settings])):
            if not names or len(set(names)) != len(names):
                raise InputError(f"A benchmark needs at least one {what}, and no two of one name; got {names[:20]}.")
        self.model, self.cases, self.settings, self.judges, self.folder = model, cases, settings, judges, folder
        job = {
            "benchmark": name,
            "model": model.name,
            "checkpoint": model.checkpoint_hash(),
            "dtype": str(model.dtype).removeprefix("torch."),
            "cases": {case.id: _identity(case) for case in cases},
            "settings": {setting.name: dataclasses.asdict(setting) for setting in settings},
            "metrics": [dataclasses.asdict(judge.card) for judge in judges if judge.card is not None],
        }
        self.cells = Cells(folder, json.loads(json.dumps(job, default=str)), growing=("cases", "settings"))
        self._sources: tuple[str, dict[str, Source]] = ("", {})

    def tasks(self) -> list[Task[Trial]]:
        """Return one task a case and setting, cases first, so that a case's source is made once."""
        trials = [Trial(case, setting) for case in self.cases for setting in self.settings]
        return [Task((trial.key,), trial) for trial in trials]

    def run(self, *, shard: Shard = Shard(), told: Told | None = None) -> bool:
        """Run what is not done yet; returns whether everything is."""
        return run_tasks(self.tasks(), self, self.cells, shard=shard, told=told)

    def records(self) -> list[Record]:
        """Return the records that are there, cases first."""
        return [self.cells[task.keys[0]] for task in self.tasks() if self.cells.has(task.keys)]

    def __call__(self, trial: Trial) -> Mapping[str, Record]:
        """Return the record of one trial; one that fails is a record too."""
        case, setting, started = trial.case, trial.setting, time.perf_counter()
        record: dict[str, Any] = {
            "case": case.id,
            "setting": setting.name,
            "category": case.category,
            "prompt": case.prompt,
            "edits": list(case.edits),
        }
        try:
            source = self._source(case, setting)
            editor = EDITORS[setting.editor](self.model, **{**setting.options, **setting.edit})
            begun = time.perf_counter()
            if setting.follow:
                result = take_turns(editor, source, case.edits, setting.follow, setting.source or DRAWN_AGAIN)
            else:
                result = editor.edit(source, list(case.edits), **setting.arguments(case))
            record["seconds"] = round(time.perf_counter() - begun, 4)
            record["nfe"] = result.recipe["nfe"]
            original = source.images if case.image is None else self._given(case, source)
            figures: dict[str, list[float]] = {}
            for judge in self.judges:
                figures |= {name: list(values) for name, values in judge(case, original, result.images).items()}
            record["figures"] = figures
            record["pictures"] = self._save_pictures(trial, original, result.images)
        except (StableFlowError, RuntimeError) as error:
            record["error"] = f"{type(error).__name__}: {error}"
        record["total_seconds"] = round(time.perf_counter() - started, 4)
        record["versions"] = versions()
        return {trial.key: record}

    def _source(self, case: Case, setting: Setting) -> Source:
        """Make the case's source, or take the one at hand; every layer is recorded, so that all settings can use it."""
        if self._sources[0] != case.id:
            self._sources = case.id, {}
        wanted = json.dumps(dict(setting.source), sort_keys=True)
        if wanted not in self._sources[1]:
            recorder = StableFlow(self.model, layers=range(len(self.model.layers)))
            how = dict(setting.source)
            how |= {"solver": make_solver(how["solver"])} if "solver" in how else {}
            if case.image is None:
                source = recorder.generate(case.prompt, seed=case.seed, **how)
            else:
                source = recorder.invert(case.image, case.prompt, **how)
            self._sources[1][wanted] = source
        return self._sources[1][wanted]

    def _given(self, case: Case, source: Source) -> torch.Tensor:
        """The picture itself where it is at hand at the size worked at, else as the model draws it."""
        if isinstance(case.image, torch.Tensor) and case.image.shape[-2:] == source.images.shape[-2:]:
            return case.image[None]
        return source.images

    def _save_pictures(self, trial: Trial, source: torch.Tensor, edits: torch.Tensor) -> dict[str, Any]:
        """Write what is not there yet; returns the files' names."""
        case = _file_name(trial.case.id)
        names = {"source": f"{case}.source.png", "edits": [f"{trial.key}.{i}.png" for i in range(1, len(edits) + 1)]}
        pictures = {names["source"]: source[0], **dict(zip(names["edits"], edits))}
        if trial.case.target is not None:
            names["target"] = f"{case}.target.png"
            pictures[names["target"]] = trial.case.target
        for name, image in pictures.items() if self.folder is not None else ():
            if self.folder is not None and not (path := self.folder / "pictures" / name).exists():
                save_png(path, to_pil(image))
        return names


def _identity(case: Case) -> list[Any]:
    """What the numbers of a case depend on: a data set that changed under the same ids is another job."""
    image = case.image
    if image is None:
        picture = None
    elif isinstance(image, torch.Tensor):
        picture = digest(image)
    elif isinstance(image, (str, Path)):
        picture = _short_hash(Path(image).read_bytes()) if Path(image).is_file() else "missing"
    else:
        picture = _short_hash(image.tobytes())
    own = [case.prompt, list(case.edits), case.seed, picture]
    return own + [{name: _described(value) for name, value in case.call.items()}] if case.call else own


def _described(value: Any) -> Any:
    return value.digest() if isinstance(value, Region) else value


def _short_hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _file_name(text: str) -> str:
    """A name for files: the text's own letters where they are harmless, told apart by a digest where they are not."""
    safe = re.sub(r"[^A-Za-z0-9_-]+", "_", text)[:60]
    return safe if safe == text else f"{safe}-{zlib.crc32(text.encode()):08x}"
