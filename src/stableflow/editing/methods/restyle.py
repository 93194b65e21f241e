"""A picture in the style of a reference picture: what looks at what is its own, how things look is the reference's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from stableflow.checks import check_number
from stableflow.editing.holding import Holding
from stableflow.editing.kept_beside import needs_store
from stableflow.editing.making import Recording
from stableflow.editing.memory import KVMemory
from stableflow.editing.policy import POLICIES, Policy
from stableflow.editing.recipe import as_json
from stableflow.editing.run import Run
from stableflow.editing.source import Source
from stableflow.errors import InputError
from stableflow.interventions import MatchStatistics
from stableflow.models.base import Intervention


@dataclass(frozen=True, kw_only=True)
class Restyle(Holding):
    """K_i <- K_i^src, and V takes the mean and the spread of the reference's V in every channel; all layers, all t.

    Args:
        strength: How far values take the reference's statistics over, in [0, 1]; 1 when None.
        style: The reference, a source of the same size and flow times; `stableflow.restyle` makes it of a picture.
        kv_memory: Where keys and values of both are: "auto", "device", "cpu" or "disk".

    Source: statistics as a style are Huang and Belongie's (ICCV 2017), arXiv:1703.06868; there of a convolutional net.
    """

    name: ClassVar[str] = "restyle"  # in no registry: it needs a second picture, which no recipe and no flag holds

    style: Source | None = None
    kv_memory: KVMemory = "auto"

    def recording(self) -> Recording:
        return Recording(tuple(range(len(self.model.layers))), self.kv_memory)

    def plan(self, run: Run) -> Policy:
        return POLICIES["restyle"]

    def prepared(self, run: Run) -> Source:
        return needs_store(run, super().prepared(run), self.recording())

    def interventions(self, run: Run) -> Sequence[Intervention]:
        store = needs_store(run, self._checked(run), self.recording()).store
        assert store is not None
        weight = 1.0 if self.strength is None else check_number("strength", self.strength, 0, 1)
        return [*super().interventions(run), MatchStatistics(range(len(self.model.layers)), store, weight=weight)]

    def settings(self) -> dict[str, Any]:
        own = {name: as_json(getattr(self, name)) for name in self.setting_names() if name != "style"}
        return own | {"style": None if self.style is None else self.style.fingerprint.as_json()}

    def _checked(self, run: Run) -> Source:
        if not isinstance(self.style, Source):
            raise InputError(
                "restyle takes its style from a reference picture, and has none: use stableflow.restyle(editor, "
                "source, picture, showing=...) or `stableflow restyle --reference FILE`."
            )
        made = run.source.fingerprint
        names = ("checkpoint", "dtype", "height", "width", "times", "modifications")
        self.style.fingerprint.require(**{name: getattr(made, name) for name in names})
        return self.style
