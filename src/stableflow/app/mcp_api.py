"""The Model Context Protocol over the same queue: assistants draw and edit pictures here. Off unless asked for."""

import asyncio
import base64
import binascii
from typing import Any

from starlette.applications import Starlette

from stableflow.app import history, work
from stableflow.app.ask import read_ask
from stableflow.app.house import House
from stableflow.app.visitors import Visitor
from stableflow.errors import InputError, MissingExtraError, StableFlowError

ABOUT = (
    "Edits pictures: say what a picture shows, and what it should show instead; everything else stays. Without a "
    "picture, one is drawn from the first description and a seed."
)


def mcp_app(house: House) -> Starlette:
    """Return the protocol's server: its one route, /mcp, and the task group that it lives in.

    Raises:
        MissingExtraError: The extra `mcp` is not installed.
    """
    try:
        from mcp.server import MCPServer  # pyright: ignore[reportMissingImports]: an extra
        from mcp.server.mcpserver import Context, Image  # pyright: ignore[reportMissingImports]
        from mcp.server.mcpserver.exceptions import ToolError  # pyright: ignore[reportMissingImports]
        from mcp.server.transport_security import (  # pyright: ignore[reportMissingImports]
            TransportSecuritySettings,
        )
    except ImportError as error:
        raise MissingExtraError("--mcp needs the extra: pip install 'stableflow[mcp]'.") from error
    server = MCPServer("stableflow", instructions=ABOUT, log_level="WARNING")

    async def edit_picture(
        context: Context,
        shows: str,
        wish: str,
        picture: str | None = None,
        seed: int | None = None,
        where: str | None = None,
        strength: float | None = None,
        task: str | None = None,
    ) -> list[Any]:
        """Edit a picture, or one that is drawn first; returns the edited picture and how it was made.

        Args:
            shows: What the picture shows, in a few words.
            wish: The same with some words changed: what it should show.
            picture: The file in base64, PNG, JPEG or WebP; without one, a picture is drawn from `shows`.
            seed: Of the drawn picture.
            where: Only there: "word:dog" for a thing of the description, or "box:x,y,width,height" in pixels.
            strength: From 0, the picture as it is, to 1, the words alone; the method's own when left out.
            task: What is wanted: add, remove, replace, background, style, text.
        """
        request = context.request_context.request
        assert request is not None  # over HTTP there is one
        visitor: Visitor = request.state.visitor
        asked = {"prompt": shows, "to": [wish], "seed": seed, "where": where, "strength": strength, "task": task}
        asked = {name: value for name, value in asked.items() if value is not None}
        try:
            if picture is not None:
                asked["picture"] = await asyncio.to_thread(visitor.keep_upload, _bytes(picture), house.limits)
            data, told = await _edited(house, visitor, asked)
        except StableFlowError as error:
            raise ToolError(house.visitors.without_paths(str(error))) from error
        return [Image(data=data, format="png"), told]

    server.tool(description=edit_picture.__doc__, structured_output=False)(edit_picture)
    return server.streamable_http_app(
        stateless_http=True, json_response=True, max_request_body_size=house.limits.upload_bytes,
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),  # the guard has looked
    )  # fmt: skip


def _bytes(picture: str) -> bytes:
    try:
        return base64.b64decode(picture.partition("base64,")[2] or picture, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError("picture: send the file in base64.") from error


async def _edited(house: House, visitor: Visitor, asked: dict[str, Any]) -> tuple[bytes, str]:
    """The edited picture's file, and a line about it; a program's results are not kept."""
    office = await house.office()
    ask = read_ask(asked, house.limits, side=house.side())
    job = house.submit(visitor, await asyncio.to_thread(work.edit, office, visitor, ask))
    try:
        while not job.over:
            await asyncio.sleep(0.03)
    except asyncio.CancelledError:
        house.desk.cancel(job)
        raise
    if job.state != "done":
        raise StableFlowError(job.error or "The request was cancelled.")
    entry, run = job.result, job.result["runs"][0]
    data = await asyncio.to_thread(history.find_file(visitor, entry["id"], run["pictures"][0]["file"]).read_bytes)
    await asyncio.to_thread(history.delete_entry, visitor, entry["id"])
    seed = "" if run["seed"] is None else f", seed {run['seed']}"
    said = " ".join([*run["warnings"], *entry["notes"]])
    return data, f"{run['editor']} in {run['seconds']} s{seed}. {said}".strip()
