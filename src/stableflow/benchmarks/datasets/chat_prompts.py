"""Edited captions by a language model behind an OpenAI-compatible endpoint."""

import json
import os
import time
from collections.abc import Mapping
from http.client import HTTPException
from ipaddress import ip_address
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from stableflow.benchmarks.datasets.coco_nonrigid import Subject, Writer
from stableflow.benchmarks.datasets.coco_prompts import CATEGORIES
from stableflow.errors import InputError, LoadError

KEY_VARIABLE = "OPENAI_API_KEY"
LARGEST_ANSWER = 1_000_000  # bytes
BUSY = (408, 429, 500, 502, 503, 504)
INSTRUCTIONS = """\
You write captions for image editing. You are given the caption of a photograph and the thing in it that matters.
Write four captions, each of the photograph after one edit; keep everything else of the caption as it is:
"non-rigid": the thing has another pose or expression; "addition": an object or garment is added to it or beside it;
"replacement": the thing is replaced by another one of similar size; "scene": it is in another place.
Answer with one JSON object that has exactly these four keys and the captions as values, and nothing else."""


def chat_writer(url: str, model: str, *, timeout: float = 60.0, retries: int = 3, pause: float = 2.0) -> Writer:
    """Return a writer for `build` that asks a chat model.

    The key is taken from the environment variable OPENAI_API_KEY, and sent to this address only; where it is not set,
    none is sent. Captions leave this machine.

    Args:
        url: The endpoint's base, such as https://host/v1; `/chat/completions` is added.
        model: As the endpoint calls it.
        timeout: Seconds to wait for one answer.
        retries: Further attempts where the endpoint is busy, each after twice the pause of the one before.
        pause: Seconds.

    Raises:
        InputError: The address is none, or would carry the key unencrypted over a network.
    """
    _check_url(url)
    address = url.rstrip("/") + "/chat/completions"

    def write(subject: Subject) -> dict[str, str]:
        where = f"{address}, image {subject.id}"
        body = {
            "model": model,
            "temperature": 0,
            "messages": [
                {"role": "system", "content": INSTRUCTIONS},
                {"role": "user", "content": json.dumps({"caption": subject.caption, "thing": subject.thing})},
            ],
        }
        for attempt in range(retries):
            try:
                return _edits(_post(address, body, timeout, where), subject, where)
            except _Busy:
                time.sleep(pause * 2**attempt)
        return _edits(_post(address, body, timeout, where), subject, where)

    return write


class _NoRedirect(HTTPRedirectHandler):
    """Another host must not be handed the key."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"The endpoint must be an http or https address, such as https://host/v1, got {url!r}.")
    if parts.username or parts.password:
        raise InputError(f"The endpoint's key belongs in the environment variable {KEY_VARIABLE}, not in the address.")
    if parts.scheme == "http" and os.environ.get(KEY_VARIABLE) and not _is_local(parts.hostname):
        raise InputError(
            f"{url} is not encrypted, so {KEY_VARIABLE} would cross the network in the open. Use https, or unset it."
        )


def _is_local(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Busy(LoadError):
    """The endpoint may answer later."""


def _post(address: str, body: Mapping[str, Any], timeout: float, where: str) -> bytes:
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get(KEY_VARIABLE):
        headers["Authorization"] = f"Bearer {key}"
    request = Request(address, data=json.dumps(body).encode(), headers=headers, method="POST")
    try:
        with build_opener(_NoRedirect).open(request, timeout=timeout) as response:
            return response.read(LARGEST_ANSWER)
    except HTTPError as error:
        kind = _Busy if error.code in BUSY else LoadError
        raise kind(f"{where}: the endpoint answered {error.code} {error.reason}.") from error
    except (HTTPException, OSError) as error:
        raise _Busy(f"{where}: the endpoint did not answer: {getattr(error, 'reason', error)}.") from error


def _edits(answer: bytes, subject: Subject, where: str) -> dict[str, str]:
    try:
        content = json.loads(answer)["choices"][0]["message"]["content"]
        start, end = content.index("{"), content.rindex("}") + 1  # models like to put a fence around JSON
        edits = {category: json.loads(content[start:end])[category].strip() for category in CATEGORIES}
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise LoadError(
            f"{where}: the answer is not a JSON object with {', '.join(CATEGORIES)}: {answer[:200]!r}"
        ) from error
    useless = [category for category, edit in edits.items() if not edit or edit == subject.caption]
    if useless:
        raise LoadError(f"{where}: the answer leaves the caption as it is for {', '.join(useless)}.")
    return edits
