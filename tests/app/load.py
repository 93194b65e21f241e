"""A heavy day, measured by hand: python tests/app/load.py [VISITORS [EDITS]].

Starts `stableflow app`, tells when the first edited picture is there and what a second edit takes, then lets visitors
come all at once. Every result is compared with what the Python API makes alone, and the server's memory is read from
/proc, so Linux only.
"""

import asyncio
import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
from PIL import Image

DOG, COLOURS = "a red dog standing on the grass at noon", ["blue", "green", "black", "white", "yellow"]
STEPS = 2  # of the visitors' edits: many short requests


def ask(visitor, number, **more):
    edited = DOG.replace("red", COLOURS[(visitor + number) % len(COLOURS)])
    return {"prompt": DOG, "seed": visitor + 1, "to": [edited], **more}


class Load:
    """One server under load."""

    def __init__(self, folder):
        code = "from stableflow.cli.launch import main; main()"
        more = ["app", "--port", "0", "--waiting", "12", "--rate", "100000", "--out", folder]
        self.started, self.busy, self.made = time.time(), 0, {}
        self.process = subprocess.Popen([sys.executable, "-c", code, *more], stderr=subprocess.PIPE, text=True)
        self.base = next(line for line in self.process.stderr if "http://" in line).split()[2]

    def megabytes(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def cpu_seconds(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def edit(self, client, wish):
        while (answer := await client.post("/api/jobs/edit", json=wish)).status_code == 429:
            assert int(answer.headers["retry-after"]) >= 1 and "queue" in answer.json()["error"]["message"]
            self.busy += 1
            await asyncio.sleep(0.5)
        job = answer.json()
        while job["state"] in ("waiting", "running"):
            job = (await client.get(f"/api/jobs/{job['id']}", params={"seen": job["version"]})).json()
        assert job["state"] == "done", job
        picture = await client.get(f"/api/history/{job['result']['id']}/0/edit_1.png")
        pixels = Image.open(io.BytesIO(picture.content)).tobytes()
        return hashlib.sha256(pixels).hexdigest(), job["result"]

    async def visit(self, visitor, edits):
        async with httpx.AsyncClient(base_url=self.base, timeout=900) as client:
            for number in range(edits):
                self.made[visitor, number], _ = await self.edit(client, ask(visitor, number, steps=STEPS))
            kept = (await client.get("/api/history")).json()
            assert len(kept) == edits and all(entry["ask"]["seed"] == visitor + 1 for entry in kept)

    async def first_edits(self):
        async with httpx.AsyncClient(base_url=self.base, timeout=900) as client:
            await self.edit(client, ask(0, 0))
            first = {"first_picture_s": round(time.time() - self.started, 1), "cpu_s": round(self.cpu_seconds(), 1)}
            began, cpu = time.time(), self.cpu_seconds()
            _, entry = await self.edit(client, ask(0, 1))
            assert entry["runs"][0]["kept"]
            took = {"second_edit_s": round(time.time() - began, 2), "second_cpu_s": round(self.cpu_seconds() - cpu, 2)}
            return first | took

    async def day(self, visitors, edits):
        self.made.clear()
        await asyncio.gather(*[self.visit(visitor, 1) for visitor in range(4)])
        before, most, began = self.megabytes(), 0.0, time.time()
        everybody = asyncio.gather(*[self.visit(visitor, edits // visitors) for visitor in range(visitors)])
        while not everybody.done():
            most = max(most, self.megabytes())
            await asyncio.sleep(0.5)
        await everybody
        return {
            "edits": len(self.made), "seconds": round(time.time() - began, 1), "told_to_wait": self.busy,
            "mb_before": round(before), "mb_most": round(most), "mb_after": round(self.megabytes()),
        }  # fmt: skip


def wrong(made):
    """How many results differ from those of the Python API alone."""
    import torch

    import stableflow as sf

    torch.set_num_threads(1)
    editor, found = sf.StableFlow(sf.load("tiny")), 0
    for visitor in sorted({visitor for visitor, _ in made}):
        source = editor.generate(DOG, seed=visitor + 1, num_steps=STEPS)
        for (_, number), digest in [(key, value) for key, value in made.items() if key[0] == visitor]:
            alone = sf.to_pil(editor.edit(source, ask(visitor, number)["to"]).images[0])
            found += hashlib.sha256(alone.tobytes()).hexdigest() != digest
    return found


def main(visitors=20, edits=200):
    with tempfile.TemporaryDirectory() as folder:
        load = Load(folder)
        try:
            result = asyncio.run(load.first_edits())
            if edits:
                result |= asyncio.run(load.day(visitors, edits)) | {"wrong": wrong(load.made)}
        finally:
            load.process.kill()
            load.process.wait()
    print(json.dumps(result))  # noqa: T201


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
