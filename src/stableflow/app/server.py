"""The app as a web server: pages, the page's routes, OpenAI's, behind one guard."""

from importlib import resources
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response

from stableflow.app.desk import Busy
from stableflow.app.guard import Door, Guard, fault, fault_page, wants_page
from stableflow.app.house import House
from stableflow.app.mcp_api import mcp_app
from stableflow.app.metrics import CONTENT_TYPE, exposition
from stableflow.app.openai_api import openai_routes
from stableflow.app.routes import routes
from stableflow.errors import StableFlowError, UnknownNameError

STATIC = {
    ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml", ".png": "image/png",
}  # fmt: skip


def make_server(house: House, door: Door, *, mcp: bool = False) -> FastAPI:
    """Return the server of a house; nothing runs yet.

    Args:
        door: Who may come in.
        mcp: Whether assistants are served, at /mcp.
    """
    assistants = mcp_app(house) if mcp else None
    lifespan = None if assistants is None else assistants.router.lifespan_context
    server = FastAPI(title="stableflow", openapi_url=None, lifespan=lifespan)
    server.router.routes.extend([] if assistants is None else assistants.routes)
    server.include_router(routes(house))
    server.include_router(openai_routes(house))
    _pages(server, house)
    _errors(server, house)
    server.add_middleware(Guard, door=door, visitors=house.visitors, limits=house.limits)  # pyright: ignore[reportArgumentType]
    return server


def _pages(server: FastAPI, house: House) -> None:
    folder = Path(str(resources.files("stableflow.app") / "static"))
    files = {path.name: path for path in folder.iterdir() if path.suffix in STATIC}

    @server.get("/")
    async def page() -> FileResponse:
        return FileResponse(files["index.html"], media_type=STATIC[".html"])

    @server.get("/static/{name}")
    async def static(name: str) -> FileResponse:
        if name not in files:
            raise UnknownNameError("There is no such page.")
        return FileResponse(files[name], media_type=STATIC[files[name].suffix], headers={"cache-control": "no-cache"})

    @server.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok" if house.studio is not None else "loading"}

    @server.get("/metrics")
    def metrics() -> Response:
        desk = house.desk
        return Response(exposition(desk.outcomes, desk.numbers(), desk.took), media_type=CONTENT_TYPE)


def _errors(server: FastAPI, house: House) -> None:
    def answer(request: Request, message: str, status: int, **headers: str) -> Response:
        message = house.visitors.without_paths(message)
        if wants_page(request.headers.get("accept", "")):
            return HTMLResponse(fault_page(message), status, headers=headers)
        return JSONResponse(fault(message, status), status, headers=headers)

    @server.exception_handler(Busy)
    async def busy(request: Request, error: Busy) -> Response:
        return answer(request, str(error), 429, **{"Retry-After": str(error.retry_after)})

    @server.exception_handler(StableFlowError)
    async def refused(request: Request, error: StableFlowError) -> Response:
        return answer(request, str(error), 404 if isinstance(error, UnknownNameError) else 422)

    @server.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        return answer(request, str(error.detail), error.status_code)

    @server.exception_handler(404)
    async def missing(request: Request, error: Exception) -> Response:
        return answer(request, "There is no such page.", 404)

    @server.exception_handler(Exception)
    async def fails(request: Request, error: Exception) -> Response:
        return answer(request, f"Something went wrong inside the app ({type(error).__name__}). Please report it.", 500)
