"""What strangers may send: each is refused or harmless, nothing is left behind, and the app goes on."""

import base64
import io
import json
import shlex
import struct
import tempfile
import zlib
from pathlib import Path

import httpx
import numpy as np
import pytest
from app_tools import BLUE, DOG, PICTURE, QUICK, Guest, serving
from PIL import Image, PngImagePlugin

from stableflow.app.guard import Door
from stableflow.app.limits import Limits

REFUSED = {400, 403, 404, 405, 413, 421, 422, 429}
NOBODY = "0" * 32


@pytest.fixture(scope="module", autouse=True)
def temporary(tmp_path_factory):
    """Where whatever is put aside goes while this file runs."""
    before, tempfile.tempdir = tempfile.tempdir, str(tmp_path_factory.mktemp("aside"))
    yield Path(tempfile.tempdir)
    tempfile.tempdir = before


@pytest.fixture(scope="module")
def secret(house):
    """Somebody else's result, upload and job."""
    owner = Guest(house.base)
    upload = owner.upload(PICTURE.read_bytes())
    entry = owner.edit(QUICK)
    return {"entry": entry["id"], "upload": upload["id"], "job": owner.run("source", QUICK)["id"], "owner": owner}


def png(image=None, text=None):
    info = PngImagePlugin.PngInfo()
    for key, value in (text or {}).items():
        info.add_itxt(key, value)
    buffer = io.BytesIO()
    (image or Image.new("RGB", (64, 64), "red")).save(buffer, format="PNG", pnginfo=info)
    return buffer.getvalue()


def bomb(width, height):
    """A PNG whose header promises a huge picture."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))  # noqa: E731
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 10_000))
        + chunk(b"IEND", b"")
    )


PATHS = [
    "/static/../server.py", "/static/..%2fserver.py", "/static/%2e%2e/guard.py", "/static//etc/passwd", "/static/.env",
    "/static/index.html%00.js", "/api/history/../../entry.json", "/api/history/..%2f..%2fvisitors/entry.json",
    "/api/history/20261125171832-7b9be8dee5e9/entry.json", "/api/history/x/../../../etc/passwd",
    "/api/uploads/../../../etc/passwd", "/api/uploads/%2e%2e%2f%2e%2e", "/api/uploads/" + "a" * 5000,
    "/api/jobs/../about/x", "/api/jobs/%00", "/gradio_api/file=/etc/passwd", "/file=/etc/passwd", "/proxy=http://x",
    "/gradio_api/upload", "/config", "/openapi.json", "/docs", "/.git/config",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_paths_lead_nowhere(guest, path):
    request = httpx.Request("GET", guest.http.base_url)
    request.url = request.url.copy_with(raw_path=path.encode())
    answer = guest.http.send(request)
    assert answer.status_code in REFUSED, answer.text
    assert "root:" not in answer.text and "import" not in answer.text


@pytest.mark.parametrize(
    "method, path",
    [
        ("GET", "/api/history/{entry}/0/edit_1.png"), ("GET", "/api/history/{entry}/given"),
        ("POST", "/api/history/{entry}/again"), ("POST", "/api/history/{entry}/session"),
        ("DELETE", "/api/history/{entry}"), ("GET", "/api/uploads/{upload}"), ("GET", "/api/jobs/{job}"),
        ("DELETE", "/api/jobs/{job}"),
    ],
)  # fmt: skip
def test_nobody_reaches_what_is_anothers(guest, secret, method, path):
    assert guest.http.request(method, path.format(**secret)).status_code == 404
    assert secret["owner"].http.get(f"/api/history/{secret['entry']}/0/edit_1.png").status_code == 200


@pytest.mark.parametrize(
    "cookie", ["", "x", "../" * 11, "a" * 32 + "/", "%00" * 11, "a" * 100_00, "\"';--", "visitors/" + "a" * 23]
)
def test_forged_cookies_are_new_visitors(house, cookie):
    answer = httpx.get(f"{house.base}/api/history", headers={"cookie": f"stableflow_visitor={cookie}"})
    assert answer.status_code == 200 and answer.json() == [] and "HttpOnly" in answer.headers["set-cookie"]


def test_a_token_is_not_on_the_disk_and_a_folder_is_not_a_token(guest, house, secret):
    token = secret["owner"].http.cookies["stableflow_visitor"]
    names = [path.name for path in (house.folder / "visitors").iterdir()]
    assert token not in names
    for name in names:
        found = httpx.get(f"{house.base}/api/history", headers={"cookie": f"stableflow_visitor={name}"})
        assert found.json() == []


PICTURES = {
    "nothing": b"", "text": b"hello", "html": b"<html><script>alert(1)</script>", "svg": b"<svg onload='alert(1)'/>",
    "php": b"GIF89a<?php system('id') ?>", "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nrun",
    "cut": png()[:60], "bomb": bomb(60_000, 60_000), "wide": bomb(2_000_000_000, 1),
    "flat": png(Image.new("L", (1, 9000))),
    "small": png(Image.new("RGB", (3, 3))), "zip": b"PK\x03\x04" + b"\0" * 500, "pickle": b"\x80\x04cos\nsystem\n.",
    "elf": b"\x7fELF" + b"\0" * 400, "heavy": b"\xff\xd8\xff" + b"\0" * (21 * 2**20),
}  # fmt: skip


@pytest.mark.parametrize("kind", PICTURES)
def test_what_is_no_picture_is_refused_and_not_kept(guest, house, kind):
    before = sorted((house.folder / "visitors").rglob("*"))
    answer = guest.http.post("/api/pictures", content=PICTURES[kind], headers={"content-type": "image/png"})
    assert answer.status_code in REFUSED and str(house.folder) not in answer.text, answer.text
    after = [path for path in (house.folder / "visitors").rglob("*") if path not in before]
    assert [path for path in after if path.is_file()] == []


ASKS = {
    "unknown field": QUICK | {"model": "evil/model"}, "a file": QUICK | {"image": "/etc/passwd"},
    "lora": QUICK | {"lora": "evil"}, "offload": QUICK | {"components": "x"}, "no upload": QUICK | {"picture": NOBODY},
    "path as picture": QUICK | {"picture": "../../../etc/passwd"}, "path as mask": QUICK | {"mask": "/etc/passwd"},
    "mask file": QUICK | {"where": "mask:/etc/passwd"}, "inverse mask file": QUICK | {"where": "~mask:/etc/passwd"},
    "amounts": QUICK | {"where": "amount:9999x9999x9999:AAAA"}, "unknown where": QUICK | {"where": "exec:rm"},
    "negative seed": QUICK | {"seed": -1}, "huge seed": QUICK | {"seed": 2**80}, "steps": QUICK | {"steps": 10**9},
    "no steps": QUICK | {"steps": 0},
    "size": QUICK | {"width": 10**6, "height": 10**6}, "strength": QUICK | {"strength": 7},
    "many": QUICK | {"strengths": [0.1] * 60}, "many prompts": QUICK | {"to": ["a dog"] * 64},
    "more prompts": QUICK | {"to": ["a dog"] * 10_000}, "long prompt": QUICK | {"prompt": "dog " * 10_000},
    "zero bytes": QUICK | {"prompt": "a\x00dog"}, "escapes": QUICK | {"to": ["\x1b]0;owned\x07"]},
    "no prompt": QUICK | {"prompt": "  "}, "no change": QUICK | {"to": []}, "numbers": QUICK | {"to": [1]},
    "editor": QUICK | {"editor": "os.system"}, "editor path": QUICK | {"editor": "../../x"},
    "setting": QUICK | {"set": {"__class__": "x"}},
    "steps in set": QUICK | {"editor": "sdedit", "set": {"num_steps": 10**7}},
    "nested set": QUICK | {"set": {"layers": {"a": {"b": {}}}}}, "list": [1, 2], "text": "edit", "null": None,
    "preset bomb": QUICK | {"preset": "x" * 10**6}, "guidance": QUICK | {"guidance": 1e300},
    "solver": QUICK | {"solver": "__import__('os')"},
}  # fmt: skip


@pytest.mark.parametrize("kind", ASKS)
def test_hostile_requests_are_refused_with_a_reason(guest, kind):
    answer = guest.submit("edit", ASKS[kind])
    if answer.status_code == 202:  # what only the run finds out
        job = guest.outcome(answer.json())
        assert job["state"] == "failed" and job["error"], job
        return
    assert answer.status_code in REFUSED, answer.text
    message = answer.json()["error"]["message"]
    assert message and len(message) < 4000 and "Traceback" not in message


@pytest.mark.parametrize(
    "body", [b"{", b"\xff\xfe", b"[" * 100_000, b"NaN", b'{"a":1e999}', b"null" * 10, b"{}" * 2**18]
)
def test_broken_json_is_refused(guest, body):
    assert guest.http.post("/api/jobs/edit", content=body).status_code in REFUSED


def recipe(**changes):
    """A recipe as our PNGs hold it, with hostile changes."""
    source = {
        "model": "tiny", "dtype": "float32", "prompt": DOG, "seed": 1, "image": None, "height": 64, "width": 64,
        "times": [1.0, 0.5, 0.0], "guidance_scale": 3.5, "solver": {"name": "euler"}, "inversion": None,
        "nudge_scale": 1.0,
    }  # fmt: skip
    made = {"format": 2, "editor": {"name": "stable-flow"}, "source": source, "edits": [BLUE], "region": None}
    source |= {name: value for name, value in changes.items() if name in source}
    return made | {name: value for name, value in changes.items() if name not in source}


RECIPES = {
    "file as region": recipe(region="mask:/etc/passwd"), "inverted": recipe(region="~mask:/etc/passwd"),
    "region bomb": recipe(region="amount:1x40000x40000:" + base64.b64encode(zlib.compress(b"\0" * 10**6)).decode()),
    "editor": recipe(editor={"name": "os.system"}), "no editor": recipe(editor=None),
    "steps": recipe(times=[0.0] * 9999),
    "setting": recipe(editor={"name": "sdedit", "num_steps": 10**8}), "list": [1], "deep": {"source": [[[[{}]]]]},
    "solver": recipe(solver={"name": "../../x"}), "prompt": recipe(prompt="x" * 10**5), "size": recipe(height=10**6),
}  # fmt: skip


@pytest.mark.parametrize("kind", RECIPES)
def test_hostile_recipes_restore_nothing(guest, kind):
    restored = guest.upload(png(text={"stableflow": json.dumps(RECIPES[kind])}))["restored"]
    assert restored is None or (restored["ask"] is None and restored["notes"]), restored


@pytest.mark.parametrize("more", [{"together": True}, {"edit_strength": [0.5, None]}, {"edit_guidance": [3.0]}])
def test_what_the_page_has_no_place_for_is_not_restored_in_part(guest, more):
    restored = guest.upload(png(text={"stableflow": json.dumps(recipe(**more))}))["restored"]
    assert restored["ask"] is None and "--from-image" in restored["notes"][0]


def test_a_recipe_chooses_no_model(guest):
    hostile = recipe(model="evil/model-with-code")
    restored = guest.upload(png(text={"stableflow": json.dumps(hostile)}))["restored"]
    assert "model" not in restored["ask"] and "another model" in restored["notes"][0]
    assert guest.edit(restored["ask"])["model"] == "tiny"


def test_script_in_prompts_stays_text_and_pages_run_no_script_of_others(guest):
    words = "a <script>alert(1)</script> dog"
    entry = guest.edit(QUICK | {"prompt": words, "to": [words + " '; rm -rf $(echo /) `id`"]})
    answer = guest.http.get("/api/history")
    assert (
        answer.headers["content-type"] == "application/json" and answer.headers["x-content-type-options"] == "nosniff"
    )
    policy = guest.http.get("/").headers["content-security-policy"]
    assert "script-src 'self'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert shlex.split(entry["command"])[-3] == words + " '; rm -rf $(echo /) `id`"


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_other_sites_cannot_act_for_a_visitor(guest, headers):
    assert guest.http.post("/api/jobs/edit", json=QUICK, headers=headers).status_code == 403


def test_a_browser_that_goes_astray_gets_a_page_and_no_script(guest):
    for path in ("/nothing", "/api/history/x/y", "/api/jobs/<script>alert(1)</script>", "/api/uploads/<b>"):
        answer = guest.http.get(path, headers={"accept": "text/html,*/*"})
        assert answer.status_code == 404 and answer.headers["content-type"].startswith("text/html")
        assert "Back to the app" in answer.text and "<script" not in answer.text and "<b>" not in answer.text
        assert "script-src 'self'" in answer.headers["content-security-policy"]


def test_a_local_app_answers_to_its_own_names_alone(tiny, tmp_path):
    with serving(tiny, tmp_path, door=Door(hosts=["127.0.0.1"])) as house:
        assert httpx.get(f"{house.base}/health").status_code == 200
        refused = httpx.get(f"{house.base}/", headers={"host": "evil.example", "accept": "text/html"})
        assert refused.status_code == 421 and "--allow-host" in refused.text and "<title>" in refused.text


def test_a_password_is_asked_for(tiny, tmp_path):
    with serving(tiny, tmp_path, door=Door(users=(("ann", "correct-horse"),))) as house:
        get = lambda **how: httpx.get(f"{house.base}/api/about", **how).status_code  # noqa: E731
        assert httpx.get(f"{house.base}/health").status_code == 200
        assert get() == 401 and get(auth=("ann", "wrong-horse")) == 401 and get(auth=("ann", "correct-horse")) == 200
        given = ["Bearer x", "Bearer ann", "Bearer correct-horse", "Basic !!!", "Basic", "ann:correct-horse"]
        assert [get(headers={"authorization": text}) for text in given] == [401, 401, 200, 401, 401, 401]


def test_limits_of_pace_queue_and_disk_answer_politely(tiny, tmp_path):
    limits = Limits(rate=6, waiting=2, waiting_each=2, history=1, history_bytes=5_000_000)
    with serving(tiny, tmp_path, limits=limits) as house:
        guest = Guest(house.base)
        slow = [guest.submit("edit", QUICK | {"steps": 60}).json() for _ in range(2)]
        full = guest.submit("edit", QUICK)
        assert full.status_code == 429 and int(full.headers["retry-after"]) >= 1
        for job in slow:
            guest.http.delete(f"/api/jobs/{job['id']}")
            guest.outcome(job)
        fast = [guest.submit("edit", QUICK).status_code for _ in range(3)]
        assert 429 in fast and "requests a minute" in guest.submit("edit", QUICK).json()["error"]["message"]
        assert Guest(house.base).http.get("/api/about").status_code == 200  # reading is not counted
        noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (1400, 1400, 3), dtype=np.uint8))
        other = Guest(house.base)
        answer = other.http.post("/api/pictures", content=png(noise))
        assert answer.status_code == 422 and "history takes" in answer.json()["error"]["message"]


def test_a_body_without_a_length_is_cut_off(guest):
    def endless():
        for _ in range(40):
            yield b"\0" * 2**20

    try:
        status = guest.http.post("/api/pictures", content=endless()).status_code
    except httpx.HTTPError:  # the server hangs up on what goes on sending
        status = 413
    assert status == 413


def test_after_all_of_it_the_app_works_and_no_temporary_file_is_left(guest, house, temporary):
    assert guest.edit(QUICK)["runs"]
    assert list(house.folder.rglob("*.part")) == list(house.folder.rglob(".*")) == [*temporary.rglob("*")] == []
