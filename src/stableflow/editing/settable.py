"""What is set at an editor: read, written down, and changed for one call."""

import dataclasses
from typing import Any, ClassVar, TypeVar

from stableflow.editing.recipe import as_json
from stableflow.errors import unknown_name

Kind = TypeVar("Kind", bound="Settable")


@dataclasses.dataclass(frozen=True)
class Settable:
    """A frozen dataclass whose fields are settings, one of them a model."""

    name: ClassVar[str]

    def having(self: Kind, **settings: Any) -> Kind:
        """Return the editor with some settings changed.

        Raises:
            UnknownNameError: It has no such setting; lists those that it has.
        """
        known = self.setting_names()
        for name in settings:
            if name not in known:
                raise unknown_name(f"setting of {self.name}", name, known)
        return dataclasses.replace(self, **settings) if settings else self

    def settings(self) -> dict[str, Any]:
        """Return the settings as JSON values, the model apart."""
        return {name: as_json(getattr(self, name)) for name in self.setting_names()}

    @classmethod
    def setting_names(cls) -> list[str]:
        """Return the names of the settings, the model apart."""
        return [known.name for known in dataclasses.fields(cls) if known.init and known.name != "model"]
