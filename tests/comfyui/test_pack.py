"""What a stranger gets: metadata, ports that are explained, example workflows that fit the nodes."""

import json
import tomllib

import pytest
from pack_folder import PACK

WORKFLOWS = sorted((PACK / "example_workflows").glob("*.json"))
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}


def test_metadata_is_what_the_registry_asks_for():
    content = tomllib.loads((PACK / "pyproject.toml").read_text(encoding="utf-8"))
    project, comfy = content["project"], content["tool"]["comfy"]
    assert "comfyui" not in project["name"].lower() and project["version"].count(".") == 2
    assert (PACK / project["license"]["file"]).exists()
    assert comfy["PublisherId"] and comfy["DisplayName"] and comfy["requires-comfyui"].startswith(">=")


def test_node_ids_are_the_packs_own(pack):
    assert len(pack.nodes) == 10 and all(name.startswith("StableFlow") for name in pack.nodes)
    for node in pack.nodes.values():
        schema = node.GET_SCHEMA()
        assert schema.category == "Stable Flow" and schema.description
        names = [port.id for port in [*schema.inputs, *schema.outputs] if port.id]
        assert len(set(names)) == len(names), schema.node_id


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_fit_the_nodes(pack, path):
    """Links join outputs to inputs of one type, and every value has its widget."""
    flow = json.loads(path.read_text(encoding="utf-8"))
    nodes = {node["id"]: node for node in flow["nodes"]}
    for _, origin, output, target, slot, kind in flow["links"]:
        assert nodes[origin]["outputs"][output]["type"] == kind == nodes[target]["inputs"][slot]["type"]
    own = [node for node in flow["nodes"] if node["type"] in pack.nodes]
    assert own
    for node in own:
        ports = pack.nodes[node["type"]].GET_SCHEMA().inputs
        wired = {port["name"] for port in node["inputs"]}
        assert wired <= {port.id for port in ports}
        widgets = [port.id for port in ports if _type(port) in WIDGETS and port.id not in wired]
        assert len(node["widgets_values"]) == len(widgets) + (node["type"] == "StableFlowSource")
    assert (path.with_suffix(".png")).exists() or "flux" in path.stem


def _type(port):
    return getattr(port, "io_type", None) or port.get_io_type()
