"""Run the node pack's example workflows on a ComfyUI server, and write them as its front end reads them.

    python examples/comfyui_workflows.py http://127.0.0.1:8188 integrations/comfyui/example_workflows

The server has the pack among its custom nodes and examples/picture.png in its input folder. Workflows with the bundled
model are posted to /prompt and their last picture is saved beside them; FLUX.1's is only written.
"""

import io
import json
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from PIL import Image

DRAWN, PICTURE = "a red dog standing on the grass at noon", "a white cat sitting on the grass at noon"
Graph = dict[str, tuple[str, dict[str, Any]]]
"""By name: the class of a node and its inputs; ("name", 0) is the first output of another."""

TINY: Graph = {"model": ("StableFlowBundledModel", {})}
FLUX: Graph = {
    "unet": ("UNETLoader", {"unet_name": "flux1-dev.safetensors", "weight_dtype": "default"}),
    "clip": (
        "DualCLIPLoader",
        {"clip_name1": "t5xxl_fp16.safetensors", "clip_name2": "clip_l.safetensors", "type": "flux"},
    ),
    "vae": ("VAELoader", {"vae_name": "ae.safetensors"}),
}


def said(name: str, text: str, clip: tuple[str, int] = ("model", 1)) -> Graph:
    return {name: ("CLIPTextEncode", {"clip": clip, "text": text})}


def sampled(
    steps: int, source: tuple[str, int], hold: tuple[str, int], mask: tuple[str, int] | None = None, **at: Any
) -> Graph:
    """Inject, KSampler, VAE Decode, Save Image."""
    model, vae, large = at.get("model", ("model", 0)), at.get("vae", ("model", 2)), "vae" in at
    inject = {"model": model, "source": source, "hold": hold, "start_at_source": True, "times": "same"}
    sampler = {"seed": 0, "steps": steps, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    prompt = at.get("prompt", ("edit", 0))
    sampler |= {"model": ("inject", 0), "positive": prompt, "negative": prompt, "latent_image": at["latent"]}
    return {
        "inject": ("StableFlowInject", inject | ({} if mask is None else {"mask": mask})),
        "sampler": ("KSampler", sampler),
        "decoded": ("VAEDecode", {"samples": ("sampler", 0), "vae": vae}),
        **({} if large else {"shown": scaled("decoded", 256, "nearest-exact")}),
        "saved": ("SaveImage", {"images": ("decoded" if large else "shown", 0), "filename_prefix": "stableflow"}),
    }


def scaled(name: str, size: int, method: str) -> tuple[str, dict[str, Any]]:
    given = {"upscale_method": method, "width": size, "height": size, "crop": "center"}
    return "ImageScale", {"image": (name, 0), **given}


def drawn(seed: int, steps: int = 20) -> Graph:
    given = {"seed": seed, "steps": steps, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple"}
    given |= {"model": ("model", 0), "positive": ("prompt", 0), "latent": ("empty", 0)}
    return {
        **TINY,
        **said("prompt", DRAWN),
        "empty": ("EmptyLatentImage", {"width": 64, "height": 64, "batch_size": 1}),
        "source": ("StableFlowSource", given),
    }


def inverted(
    steps: int, positive: tuple[str, int], model: tuple[str, int], vae: tuple[str, int], nudge: float, size: int
) -> Graph:
    given = {"steps": steps, "scheduler": "simple", "guidance": 1.0, "nudge": nudge, "iterations": 1}
    return {
        "picture": ("LoadImage", {"image": "picture.png"}),
        "scaled": scaled("picture", size, "area"),
        "latent": ("VAEEncode", {"pixels": ("scaled", 0), "vae": vae}),
        "source": ("StableFlowInvert", {"model": model, "positive": positive, "latent": ("latent", 0), **given}),
    }


def word(text: str, name: str, grow: int) -> Graph:
    given = {"prompt": text, "word": name, "guidance": 1.0, "grow": grow}
    given |= {"model": ("model", 0), "clip": ("model", 1), "source": ("source", 0)}
    return {"region": ("StableFlowRegionFromWord", given)}


def layers(preset: str, model: tuple[str, int] = ("model", 0)) -> Graph:
    return {
        "layers": ("StableFlowVitalLayers", {"model": model, "preset": preset, "layers": "0, 1, 17", "weight": 1.0})
    }


WORKFLOWS: dict[str, Graph] = {
    "edit_drawn": {
        **drawn(1),
        **said("edit", DRAWN.replace("standing", "sitting")),
        **layers("tiny"),
        **sampled(20, ("source", 0), ("layers", 0), latent=("source", 1)),
    },
    "edit_picture_by_word": {
        **TINY,
        **said("prompt", PICTURE),
        **said("edit", PICTURE.replace("white", "black")),
        **inverted(50, ("prompt", 0), ("model", 0), ("model", 2), 1.0, 64),
        **word(PICTURE, "cat", grow=1),
        **layers("all layers"),
        "guided": ("FluxGuidance", {"conditioning": ("edit", 0), "guidance": 3.0}),
        **sampled(50, ("source", 0), ("layers", 0), ("region", 0), latent=("latent", 0), prompt=("guided", 0)),
    },
    "move": {
        **drawn(5),
        **word(DRAWN, "dog", grow=0),
        **layers("all layers"),
        "move": (
            "StableFlowMove",
            {"model": ("model", 0), "source": ("source", 0), "mask": ("region", 0), "right": -8, "down": 0, "seed": 0},
        ),
        **sampled(20, ("move", 0), ("layers", 0), ("move", 1), latent=("source", 1), prompt=("prompt", 0)),
    },
    "background": {
        **drawn(5),
        **said("edit", "a red dog standing in the snow at night"),
        **word(DRAWN, "dog", grow=0),
        "background": (
            "StableFlowBackground",
            {"model": ("model", 0), "source": ("source", 0), "figure": ("region", 0)},
        ),
        **sampled(20, ("source", 0), ("background", 0), ("background", 1), latent=("source", 1)),
    },
    "flux_dev_edit": {
        **FLUX,
        **said("prompt", "a dog standing on the grass", ("clip", 0)),
        **said("edit", "a dog sitting on the grass", ("clip", 0)),
        **inverted(50, ("prompt", 0), ("unet", 0), ("vae", 0), 1.15, 1024),
        **layers("black-forest-labs/FLUX.1-dev", ("unet", 0)),
        "guided": ("FluxGuidance", {"conditioning": ("edit", 0), "guidance": 3.0}),
        **sampled(
            50, ("source", 0), ("layers", 0), latent=("latent", 0), prompt=("guided", 0), model=("unet", 0),
            vae=("vae", 0),
        ),
    },
}  # fmt: skip


def as_prompt(graph: Graph) -> dict[str, Any]:
    """Return a graph as /prompt takes it."""
    return {
        name: {"class_type": kind, "inputs": {key: list(v) if isinstance(v, tuple) else v for key, v in given.items()}}
        for name, (kind, given) in graph.items()
    }


def as_workflow(graph: Graph, known: dict[str, Any]) -> dict[str, Any]:
    """Return a graph as the front end reads it: numbered nodes from left to right, links, values in order."""
    numbers, links, columns = {name: i for i, name in enumerate(graph, start=1)}, [], depths(graph)
    nodes: dict[str, Any] = {}
    heights: dict[int, int] = {}
    for name, (kind, given) in graph.items():
        ports = {**known[kind]["input"].get("required", {}), **known[kind]["input"].get("optional", {})}
        wired = [key for key in ports if isinstance(given.get(key), tuple)]
        values = [given[key] for key in ports if key in given and key not in wired]
        if kind in ("KSampler", "StableFlowSource"):
            values.insert(1, "fixed")  # what becomes of the seed after a run
        height = 90 + 26 * (len(ports) + len(known[kind]["output"])) + 90 * (kind == "CLIPTextEncode")
        column = columns[name]
        nodes[name] = {
            "id": numbers[name], "type": kind, "pos": [380 * column, heights.get(column, 0)], "size": [330, height],
            "flags": {}, "order": column, "mode": 0, "properties": {"Node name for S&R": kind},
            "widgets_values": values,
            "inputs": [{"name": key, "type": ports[key][0], "link": None} for key in wired],
            "outputs": [
                {"name": label, "type": io_type, "links": []}
                for label, io_type in zip(known[kind]["output_name"], known[kind]["output"])
            ],
        }  # fmt: skip
        heights[column] = heights.get(column, 0) + height + 60
    for name, (_, given) in graph.items():
        for slot, port in enumerate(nodes[name]["inputs"]):
            origin, output = given[port["name"]]
            port["link"] = len(links) + 1
            nodes[origin]["outputs"][output]["links"].append(port["link"])
            links.append([port["link"], numbers[origin], output, numbers[name], slot, port["type"]])
    return {
        "last_node_id": len(nodes), "last_link_id": len(links), "nodes": list(nodes.values()), "links": links,
        "groups": [], "config": {}, "extra": {}, "version": 0.4,
    }  # fmt: skip


def depths(graph: Graph) -> dict[str, int]:
    """Return the column of each node: one after the last that it waits for."""
    found: dict[str, int] = {}

    def depth(name: str) -> int:
        if name not in found:
            origins = [value[0] for value in graph[name][1].values() if isinstance(value, tuple)]
            found[name] = 1 + max(map(depth, origins), default=-1)
        return found[name]

    return {name: depth(name) for name in graph}


def ask(server: str, path: str, content: Any = None) -> bytes:
    data = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(server + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read()


def run(server: str, graph: Graph) -> Image.Image:
    """Post a graph, wait for it, and return the picture that it saved."""
    number = json.loads(ask(server, "/prompt", {"prompt": as_prompt(graph)}))["prompt_id"]
    while number not in (history := json.loads(ask(server, f"/history/{number}"))):
        time.sleep(0.5)
    status = history[number]["status"]
    if status["status_str"] != "success":
        raise RuntimeError(json.dumps(status["messages"][-1], indent=1)[:4000])
    picture = next(iter(history[number]["outputs"].values()))["images"][0]
    query = f"filename={picture['filename']}&subfolder={picture['subfolder']}&type={picture['type']}"
    return Image.open(io.BytesIO(ask(server, f"/view?{query}"))).convert("RGB")


def main(server: str, folder: str) -> None:
    known = json.loads(ask(server, "/object_info"))
    for name, graph in WORKFLOWS.items():
        text = json.dumps(as_workflow(graph, known), indent=1)
        (Path(folder) / f"{name}.json").write_text(text + "\n", encoding="utf-8")
        if "model" in graph:
            started = time.perf_counter()
            run(server, graph).save(Path(folder) / f"{name}.png")
            print(f"{name}: {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main(*sys.argv[1:])
