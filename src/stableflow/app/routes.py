"""What the page asks of the server: JSON in, JSON out."""

import asyncio
import base64
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse
from PIL import Image

from stableflow.app import history, layering, work
from stableflow.app.ask import read_ask
from stableflow.app.desk import Job
from stableflow.app.house import House
from stableflow.app.photos import photo_file, photos
from stableflow.app.restore import restored
from stableflow.app.visitors import Visitor
from stableflow.checks import check_count
from stableflow.decoding import open_picture
from stableflow.editing import EDITORS
from stableflow.editing.tasks import TASKS, as_task
from stableflow.errors import InputError, LoadError, UnknownNameError
from stableflow.images import load_image
from stableflow.reading import parse_json

PATIENCE = 15.0  # seconds that a page waits for news of a job
LARGEST_JSON = 2**18  # bytes
KINDS = {"edit": work.edit, "layers": layering.layers, "source": work.source, "where": work.where}


def routes(house: House) -> APIRouter:
    """Return the page's routes."""
    router = APIRouter(prefix="/api")
    _about(router, house)
    _jobs(router, house)
    _pictures(router, house)
    _history(router, house)
    return router


def visitor_of(request: Request) -> Visitor:
    """Return who asks; the guard knows."""
    return request.state.visitor


def _about(router: APIRouter, house: House) -> None:
    @router.get("/about")
    async def about() -> dict[str, Any]:
        if house.studio is None:
            return {"ready": False, "model": house.loaded.get("model", "tiny")}
        card = house.studio.card
        return {
            "ready": True, "model": card.name, "size": list(card.size), "chart": card.chart, "words": list(card.words),
            "editors": [{"name": name, "good_for": EDITORS[name].good_for} for name in EDITORS],
            "photos": [] if card.name == "tiny" else photos(),
            "tasks": [_about_task(name) for name in TASKS],
            "limits": {name: getattr(house.limits, name) for name in ("upload_bytes", "text", "pictures", "history")},
        }  # fmt: skip

    @router.get("/examples/{name}")
    def example(name: str) -> Response:
        file = photo_file(name)
        return FileResponse(file, media_type=_picture_type(file), headers={"cache-control": "max-age=86400"})


def _about_task(name: str) -> dict[str, Any]:
    """What a task is good for, and whether it looks for its place; one that needs details says so when it is asked."""
    try:
        wanted = as_task(name)
    except InputError:
        wanted = None
    finds = wanted is not None and wanted.looks_for is not None
    return {"name": name, "good_for": (TASKS[name].__doc__ or "").strip().split("\n")[0], "finds": finds}


def _jobs(router: APIRouter, house: House) -> None:
    @router.post("/jobs/{kind}", status_code=202)
    async def submit(kind: str, request: Request) -> dict[str, Any]:
        if kind not in KINDS and kind != "why":
            raise UnknownNameError(f"There is no work of kind {kind[:40]!r}.")
        values, office, visitor = await _json(request), await house.office(), visitor_of(request)
        point = values.pop("point", None) if isinstance(values, dict) else None
        ask = read_ask(values, house.limits, side=house.side())
        if kind == "why":
            made = await asyncio.to_thread(work.why, office, visitor, ask, _point(point))
        else:
            made = await asyncio.to_thread(KINDS[kind], office, visitor, ask)
        return told(house, house.submit(visitor, made))

    @router.get("/jobs/{name}")
    async def news(name: str, request: Request, seen: int = -1) -> dict[str, Any]:
        job = _own(house, request, name)
        for _ in range(round(PATIENCE / 0.04)):
            if job.version > seen or await request.is_disconnected():
                break
            await asyncio.sleep(0.04)
        return told(house, job)

    @router.delete("/jobs/{name}")
    async def cancel(name: str, request: Request) -> dict[str, Any]:
        job = _own(house, request, name)
        house.desk.cancel(job)
        return told(house, job)


def _pictures(router: APIRouter, house: House) -> None:
    @router.post("/pictures")
    async def upload(request: Request) -> dict[str, Any]:
        data, visitor = await request.body(), visitor_of(request)
        office = await house.office()
        house.visitors.require_room(visitor, len(data))
        return await asyncio.to_thread(_received, house, office, visitor, data)

    @router.get("/uploads/{name}")
    def uploaded(name: str, request: Request) -> Response:
        file = visitor_of(request).upload(name)
        return FileResponse(file, media_type=_picture_type(file))


def _received(house: House, office: work.Office, visitor: Visitor, data: bytes) -> dict[str, Any]:
    name = visitor.keep_upload(data, house.limits)
    file = visitor.upload(name)
    height, width = load_image(file, max_pixels=house.limits.pixels).pixels.shape[1:]
    found = restored(visitor, file, office.studio.card, house.limits, side=house.side())
    return {"id": name, "width": width, "height": height, "restored": found}


def _history(router: APIRouter, house: House) -> None:
    @router.get("/history")
    def listing(request: Request) -> list[dict[str, Any]]:
        return history.entries(visitor_of(request), house.limits.history)

    @router.delete("/history/{name}")
    def delete(name: str, request: Request) -> dict[str, Any]:
        history.delete_entry(visitor_of(request), name)
        return {"deleted": name}

    @router.post("/history/{name}/again")
    async def again(name: str, request: Request) -> dict[str, Any]:
        office, visitor = await house.office(), visitor_of(request)
        return await asyncio.to_thread(_put_back, house, office, visitor, name)

    @router.post("/history/{name}/session", status_code=202)
    async def session(name: str, request: Request) -> dict[str, Any]:
        office, visitor = await house.office(), visitor_of(request)
        made = await asyncio.to_thread(work.session, office, visitor, name)
        return told(house, house.submit(visitor, made))

    @router.get("/history/{name}/{file:path}")
    def file(name: str, file: str, request: Request) -> Response:
        path = history.find_file(visitor_of(request), name, file)
        kind = {".png": "image/png", ".zip": "application/zip"}.get(path.suffix, "application/octet-stream")
        kind = "text/plain; charset=utf-8" if path.suffix in (".py", ".sh") else kind
        kind = _picture_type(path) if path.name in ("given", "mask") else kind
        return FileResponse(path, media_type=kind, headers={"cache-control": "private, max-age=3600"})


def _picture_type(path: Path) -> str:
    """The media type of a picture that has no ending."""
    with open_picture(path) as picture:
        return Image.MIME.get(picture.format or "", "application/octet-stream")


def _put_back(house: House, office: work.Office, visitor: Visitor, name: str) -> dict[str, Any]:
    """The request behind a result, with its files among the uploads again."""
    folder = history.find_entry(visitor, name)
    entry = next(entry for entry in history.entries(visitor, house.limits.history) if entry["id"] == name)
    ask = dict(entry["ask"])
    keep = partial(visitor.keep_upload, limits=house.limits)
    for file, field in (("given", "picture"), ("mask", "mask")):
        if (folder / file).is_file():
            ask[field] = keep((folder / file).read_bytes())
    if "layers" in ask:
        layering.put_back(folder, ask, keep)
    return {"ask": ask, "entry": entry}


def told(house: House, job: Job) -> dict[str, Any]:
    """Return what a page is told of a job."""
    preview = None if job.preview is None else "data:image/png;base64," + base64.b64encode(job.preview).decode()
    return {
        "id": job.id, "state": job.state, "stage": job.stage, "step": job.step, "steps": job.steps,
        "version": job.version, "ahead": house.desk.ahead(job), "wait": house.desk.wait_for(job), "preview": preview,
        "result": job.result, "error": job.error,
    }  # fmt: skip


def _own(house: House, request: Request, name: str) -> Job:
    job = house.desk.find(visitor_of(request).key, name)
    if job is None:
        raise UnknownNameError("There is no such request of yours. It may be long over; look into the history.")
    return job


async def _json(request: Request) -> Any:
    data = await request.body()
    if len(data) > LARGEST_JSON:
        raise InputError(f"The request is larger than {LARGEST_JSON // 1024} kB.")
    try:
        return parse_json(data.decode("utf-8"), where="the request")
    except (UnicodeDecodeError, LoadError) as error:
        raise InputError(f"The request is no JSON: {str(error)[:200]}") from error


def _point(point: Any) -> tuple[int, int]:
    if not isinstance(point, list) or len(point) != 2:
        raise InputError("point is a pixel [x, y] of the picture.")
    return check_count("x", point[0], 0), check_count("y", point[1], 0)
