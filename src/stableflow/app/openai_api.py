"""OpenAI's images API over the same queue: any of its clients edits a picture here."""

import asyncio
import base64
import io
import re
import time
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from PIL import Image
from starlette.datastructures import FormData, UploadFile

from stableflow.app import history, work
from stableflow.app.ask import Ask, read_ask
from stableflow.app.desk import Busy, Job
from stableflow.app.house import House
from stableflow.app.restore import restored
from stableflow.app.routes import visitor_of
from stableflow.app.visitors import Visitor, png_bytes
from stableflow.errors import InputError, StableFlowError
from stableflow.reading import parse_json

UNSAID = "a picture"  # what a source shows that nobody described
PREFIX = "stableflow_"
EXTRAS = {"source_prompt", "strength", "editor", "where", "preset", "steps", "set"}
MOST_FIELDS = 40


def openai_routes(house: House) -> APIRouter:
    """Return /v1/models and /v1/images/edits."""
    router = APIRouter(prefix="/v1")

    @router.get("/models")
    async def models() -> dict[str, Any]:
        names = [*house.studios] or [house.loaded.get("model", "tiny")]
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "stableflow"} for name in names]
        return {"object": "list", "data": data}

    @router.post("/images/edits")
    async def edits(request: Request) -> dict[str, Any]:
        visitor = visitor_of(request)
        async with request.form(max_files=4, max_fields=MOST_FIELDS, max_part_size=2**20) as form:
            model = form.get("model")
            office = await house.office(model if isinstance(model, str) else None)
            ask, size = await _ask_of(house, office, visitor, form)
        job = house.submit(visitor, await asyncio.to_thread(work.edit, office, visitor, ask))
        entry = await _outcome(house, job, request)
        answer = await asyncio.to_thread(_answer, visitor, entry, size)
        if "cookie" not in request.headers:  # a program keeps its results itself
            history.delete_entry(visitor, entry["id"])
        return answer

    return router


async def _ask_of(
    house: House, office: work.Office, visitor: Visitor, form: FormData
) -> tuple[Ask, tuple[int, int] | None]:
    """The request in a form, and the size (width, height) that the answer is scaled to."""
    values = {name: value for name, value in form.items() if isinstance(value, str)}
    image = form.get("image") or form.get("image[]")
    if not isinstance(image, UploadFile):
        raise InputError("image: send the picture to edit as a file.")
    data = await image.read()
    house.visitors.require_room(visitor, len(data))
    picture = await asyncio.to_thread(visitor.keep_upload, data, house.limits)
    asked = _described(house, office, visitor, values, picture)
    mask = form.get("mask")
    if isinstance(mask, UploadFile):
        asked["mask"] = await asyncio.to_thread(_kept_mask, visitor, await mask.read(), house)
    if values.get("response_format", "b64_json") != "b64_json":
        raise InputError("response_format: this server answers with b64_json; it has no public addresses.")
    return read_ask(asked, house.limits, side=house.side()), _size(values.get("size", "auto"))


def _described(
    house: House, office: work.Office, visitor: Visitor, values: Mapping[str, str], picture: str
) -> dict[str, Any]:
    unknown = [name for name in values if name.startswith(PREFIX) and name.removeprefix(PREFIX) not in EXTRAS]
    if unknown:
        raise InputError(
            f"Unknown fields {', '.join(unknown)[:200]}; known: {', '.join(PREFIX + name for name in sorted(EXTRAS))}."
        )
    extras = {name.removeprefix(PREFIX): value for name, value in values.items() if name.startswith(PREFIX)}
    before, arrow, after = values.get("prompt", "").partition("->")
    wish = (after if arrow else before).strip()
    said = extras.pop("source_prompt", None) or (before.strip() if arrow else _said_by(house, office, visitor, picture))
    asked: dict[str, Any] = {"prompt": said, "picture": picture, "to": [wish] if wish else []}
    for name, value in extras.items():
        asked[name] = parse_json(value, where=name) if name in ("strength", "steps", "set") else value
    number = values.get("n", "1")
    if not number.isdigit() or not 1 <= int(number) <= 10:
        raise InputError(f"n: 1 to 10 pictures, got {number[:20]!r}.")
    if int(number) > 1:
        asked.pop("strength", None)
        asked["strengths"] = [round(0.4 + 0.6 * row / (int(number) - 1), 3) for row in range(int(number))]
    return asked


def _said_by(house: House, office: work.Office, visitor: Visitor, picture: str) -> str:
    """What a picture that was made here says that it shows, else nothing in particular."""
    found = restored(visitor, visitor.upload(picture), office.studio.card, house.limits, side=house.side())
    ask = None if found is None else found["ask"]
    return UNSAID if not ask or not ask.get("to") else ask["to"][0]


def _kept_mask(visitor: Visitor, data: bytes, house: House) -> str:
    """OpenAI's masks mark by full transparency where the edit may act; ours mark it by opacity or white."""
    name = visitor.keep_upload(data, house.limits)
    with Image.open(visitor.upload(name)) as mask:
        if "A" not in mask.getbands() and "transparency" not in mask.info:
            return name
        opacity = mask.convert("RGBA").getchannel("A")
    inside = opacity.point([255] + [0] * 255)
    return visitor.keep_upload(png_bytes(inside), house.limits)


async def _outcome(house: House, job: Job, request: Request) -> dict[str, Any]:
    while not job.over:
        if await request.is_disconnected():
            house.desk.cancel(job)
        await asyncio.sleep(0.03)
    if job.retry_after is not None:
        raise Busy(job.error or "Please try again in a moment.", job.retry_after)
    if job.state != "done":
        raise StableFlowError(job.error or "The request was cancelled.")
    return job.result


def _answer(visitor: Visitor, entry: Mapping[str, Any], size: tuple[int, int] | None) -> dict[str, Any]:
    files = [picture["file"] for run in entry["runs"] for picture in run["pictures"]]
    data = []
    for file in files:
        content = history.find_file(visitor, entry["id"], file).read_bytes()
        if size is not None:
            with Image.open(io.BytesIO(content)) as picture:
                content = png_bytes(picture.resize(size, Image.Resampling.LANCZOS))
        data.append({"b64_json": base64.b64encode(content).decode()})
    rows = sum(run["nfe"]["edit"] for run in entry["runs"])
    usage = {
        "input_tokens": 0,
        "output_tokens": rows,
        "total_tokens": rows,
        "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
    }
    return {"created": round(time.time()), "data": data, "output_format": "png", "usage": usage}


def _size(text: str) -> tuple[int, int] | None:
    if text == "auto":
        return None
    match = re.fullmatch(r"([1-9][0-9]{1,3})x([1-9][0-9]{1,3})", text)
    if match is None or max(int(side) for side in match.groups()) > 4096:
        raise InputError(f"size: 'auto' or WIDTHxHEIGHT up to 4096, got {text[:40]!r}.")
    return int(match[1]), int(match[2])
