"""The models that come with the package."""

from importlib import resources
from pathlib import Path

from stableflow.errors import LoadError

BUNDLED = ("tiny", "small")


def bundled_path(name: str) -> Path:
    """Return the folder of a bundled model."""
    return Path(str(resources.files("stableflow") / "bundled" / name))


def bundled_model(name: str) -> Path:
    """Return the folder of a bundled model whose weights are there.

    Raises:
        LoadError: This version has the recipe alone; says how to train it.
    """
    path = bundled_path(name)
    if not (path / "model_index.json").is_file():
        raise LoadError(
            f"The weights of {name!r} are not part of this version. Train them with `stableflow train STAGE --model "
            f"{name}` and pass the folder `runs/{name}/pipeline`; or take {', '.join(map(repr, present()))}."
        )
    return path


def present() -> list[str]:
    """Return the names of those whose weights are there."""
    return [name for name in BUNDLED if (bundled_path(name) / "model_index.json").is_file()]
