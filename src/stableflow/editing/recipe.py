"""Settings as JSON values: what recipes hold."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from stableflow.editing.fingerprint import digest
from stableflow.flow.schedule import Schedule


def as_json(value: Any) -> Any:
    """Return a setting as JSON values; of a tensor its digest, from which a run can be recognised and not repeated."""
    if isinstance(value, Schedule):
        return value.to_json()
    if isinstance(value, Tensor):
        return {"digest": digest(value)}
    if dataclasses.is_dataclass(value):
        return {known.name: as_json(getattr(value, known.name)) for known in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): as_json(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(entry) for entry in value]
    return value
