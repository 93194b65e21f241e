"""An app that runs in a thread, and guests who visit it over the network as browsers do."""

import threading
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import uvicorn

from stableflow.app.guard import Door
from stableflow.app.house import House
from stableflow.app.limits import Limits
from stableflow.app.server import make_server
from stableflow.app.studio import Studio

PICTURE = Path(__file__).parents[2] / "examples" / "picture.png"
DOG, BLUE = "a red dog standing on the grass at noon", "a blue dog standing on the grass at noon"
QUICK = {"prompt": DOG, "seed": 1, "to": [BLUE], "steps": 3}


class Guest:
    """A visitor: a client with cookies of its own."""

    def __init__(self, base, **client):
        self.http = httpx.Client(base_url=base, timeout=120, **client)

    def submit(self, kind, ask):
        return self.http.post(f"/api/jobs/{kind}", json=ask)

    def outcome(self, job):
        while job["state"] in ("waiting", "running"):
            job = self.http.get(f"/api/jobs/{job['id']}", params={"seen": job["version"]}).json()
        return job

    def run(self, kind, ask):
        answer = self.submit(kind, ask)
        assert answer.status_code == 202, answer.text
        return self.outcome(answer.json())

    def edit(self, ask):
        job = self.run("edit", ask)
        assert job["state"] == "done", job["error"]
        return job["result"]

    def file(self, entry, file):
        answer = self.http.get(f"/api/history/{entry['id']}/{file}")
        assert answer.status_code == 200, answer.text
        return answer.content

    def upload(self, data):
        answer = self.http.post("/api/pictures", content=data)
        assert answer.status_code == 200, answer.text
        return answer.json()


def quicken(page, steps=3):
    """Let a page in a browser take few steps."""
    page.click("#more summary")
    page.fill("#steps", str(steps))


def edit(page):
    """Press the button, and wait for what comes."""
    page.click("#go")
    page.wait_for_selector("#go", state="visible")
    page.wait_for_selector("#actions", state="visible")


@contextmanager
def serving(
    model, folder, *, limits=None, door=None, content=None, credentials=None, opening=None, workshops=None, hands=1,
    mcp=False,
):  # fmt: skip
    """Run an app over a loaded model; yields its house, which knows its address."""
    limits, loaded = limits or Limits(rate=100_000), {"model": "tiny"}

    def works():
        return workshops or {"tiny": Studio((opening or (lambda: model))(), loaded, limits)}

    house = House(works, loaded, folder, limits=limits, content=content, credentials=credentials, hands=hands)
    made = make_server(house, door or Door(), mcp=mcp)
    config = uvicorn.Config(made, port=0, log_level="error", ws="none", lifespan="on" if mcp else "off")
    server = uvicorn.Server(config)
    house.open()
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    house.base = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        yield house
    finally:
        server.should_exit = True
        house.close()
        thread.join(20)
