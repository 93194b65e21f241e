"""Photographs to begin with where a real checkpoint is loaded: those in scikit-image's wheel that belong to nobody."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from stableflow.errors import UnknownNameError


@dataclass(frozen=True)
class Photo:
    """A file of `skimage/data`, and a change of it to try.

    Args:
        file: Public domain or CC0, as skimage/data/README.txt says.
        prompt, to: What it shows, and what it might.
    """

    file: str
    prompt: str
    to: str


PHOTOS = {
    "cat": Photo("chelsea.png", "a close photo of a tabby cat", "a close photo of a black cat"),
    "coffee": Photo("coffee.png", "a cup of coffee on a wooden table", "a cup of green tea on a wooden table"),
    "astronaut": Photo(
        "astronaut.png", "a portrait of an astronaut in an orange suit", "a portrait of an astronaut in a blue suit"
    ),
    "rocket": Photo("rocket.jpg", "a rocket on its launch pad at night", "a rocket on its launch pad at sunrise"),
}


def photo_file(name: str) -> Path:
    """Return the file of a photograph.

    Raises:
        UnknownNameError: There is none of this name, or scikit-image is not installed.
    """
    path = None if name not in PHOTOS else _folder() / PHOTOS[name].file
    if path is None or not path.is_file():
        raise UnknownNameError("There is no such example here.")
    return path


def photos() -> list[dict[str, str]]:
    """Return the photographs that are there, as the page takes them; none without scikit-image."""
    there = {name: photo for name, photo in PHOTOS.items() if (_folder() / photo.file).is_file()}
    return [{"name": name, "prompt": photo.prompt, "to": photo.to} for name, photo in there.items()]


def _folder() -> Path:
    found = find_spec("skimage")  # not imported: only its files are wanted
    return Path("nowhere") if found is None or found.origin is None else Path(found.origin).parent / "data"
