"""The protocol's own client edits a picture here."""

import asyncio
import base64
import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from app_tools import BLUE, DOG, PICTURE, serving
from PIL import Image

mcp = pytest.importorskip("mcp", reason="pip install 'stableflow[mcp]' ends this skip")


def calls(base, *asked):
    """What a client gets for each set of arguments, and the tools that it sees."""

    async def talk():
        async with mcp.Client(f"{base}/mcp") as client:
            tools = (await client.list_tools()).tools
            return tools, [await client.call_tool("edit_picture", arguments) for arguments in asked]

    with ThreadPoolExecutor() as beside:  # whatever event loop runs in this thread
        return beside.submit(lambda: asyncio.run(talk())).result()


def test_an_assistant_edits_pictures_and_is_told_what_is_wrong(tiny, tmp_path):
    cat = "a white cat sitting on the grass at noon"
    mine = {"shows": cat, "wish": cat.replace("white", "black"), "where": "box:16,16,40,40"}
    given = base64.b64encode(PICTURE.read_bytes()).decode()
    with serving(tiny, tmp_path, mcp=True) as house:
        tools, (drawn, edited, same, broken, outside) = calls(
            house.base,
            {"shows": DOG, "wish": BLUE, "seed": 1}, mine | {"picture": given},
            {"shows": DOG, "wish": ""}, mine | {"picture": "no picture"}, mine | {"where": "mask:/etc/passwd"},
        )  # fmt: skip
        kept = [path for path in house.folder.glob("visitors/*/history/*")]
    assert [tool.name for tool in tools] == ["edit_picture"] and "base64" in tools[0].description
    assert set(tools[0].input_schema["required"]) == {"shows", "wish"}
    picture, told = drawn.content
    assert Image.open(io.BytesIO(base64.b64decode(picture.data))).size == (64, 64) and "seed 1" in told.text
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(edited.content[0].data))).convert("RGB"))
    before = np.asarray(Image.open(PICTURE).convert("RGB"))
    assert pixels.shape == before.shape and np.array_equal(pixels[:40], before[:40])
    assert not np.array_equal(pixels, before)
    for wrong, reason in ((same, "empty"), (broken, "base64"), (outside, "where")):
        assert wrong.is_error and reason in wrong.content[0].text
    assert kept == []
