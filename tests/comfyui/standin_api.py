"""What the pack uses of `comfy_api.latest`, for machines without ComfyUI: schemas as data."""

from dataclasses import dataclass, field
from types import ModuleType
from typing import Any


class NodeOutput:
    def __init__(self, *args: Any):
        self.args = args


@dataclass
class Port:
    io_type: str
    id: str | None = None
    given: dict[str, Any] = field(default_factory=dict)


@dataclass
class Schema:
    node_id: str
    inputs: list[Port]
    outputs: list[Port]
    display_name: str = ""
    category: str = ""
    description: str = ""
    is_experimental: bool = False


class ComfyNode:
    @classmethod
    def GET_SCHEMA(cls) -> Schema:
        return cls.define_schema()  # pyright: ignore[reportAttributeAccessIssue]


def custom(io_type: str) -> Any:
    def port(name: str | None = None, **given: Any) -> Port:
        return Port(io_type, name, given)

    return type(io_type, (), {"Input": staticmethod(port), "Output": staticmethod(port)})


NAMES = {"Model", "Clip", "Vae", "ClipVision", "Conditioning", "Latent", "Image", "Mask", "Sigmas"}
NAMES |= {"Int", "Float", "String", "Boolean", "Combo"}


def modules() -> dict[str, ModuleType]:
    """Return `comfy_api` and `comfy_api.latest`."""
    io, latest, top = ModuleType("io"), ModuleType("comfy_api.latest"), ModuleType("comfy_api")
    io.__dict__.update({name: custom(name.upper()) for name in NAMES})
    io.__dict__.update(Schema=Schema, ComfyNode=ComfyNode, NodeOutput=NodeOutput, Custom=custom)
    latest.__dict__.update(io=io, ComfyExtension=object)
    top.__dict__.update(latest=latest)
    return {"comfy_api": top, "comfy_api.latest": latest}
