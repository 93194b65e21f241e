"""The node pack on a host: ComfyUI itself where COMFYUI names its folder, else a stand-in of the parts that it uses.

ComfyUI is no package, so a fresh clone tests over the stand-in. Over the real one:
COMFYUI=/path/to/ComfyUI python -m pytest tests/comfyui
"""

import asyncio
import importlib.util
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import jaxtyping
import pytest
import standin_api
import standin_host
from pack_folder import PACK

HOST = ("comfy", "comfy_api", "latent_preview", "sf_pack")
COMFYUI = os.environ.get("COMFYUI")


@pytest.fixture(scope="session")
def pack():
    """The pack as a host loads it: modules, and nodes by id."""
    jaxtyping.install_import_hook("sf_pack", "typechecking.check")
    if COMFYUI:
        _enter_comfyui(Path(COMFYUI))
    else:
        sys.modules.update(standin_api.modules() | standin_host.modules())
    spec = importlib.util.spec_from_file_location(
        "sf_pack", PACK / "__init__.py", submodule_search_locations=[str(PACK)]
    )
    assert spec is not None and spec.loader is not None
    sys.modules["sf_pack"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    extension = asyncio.run(module.comfy_entrypoint())
    nodes = {node.GET_SCHEMA().node_id: node for node in asyncio.run(extension.get_node_list())}
    yield SimpleNamespace(nodes=nodes, host=sys.modules["sf_pack.host"], name="ComfyUI" if COMFYUI else "stand-in")
    if not COMFYUI:
        for name in [name for name in sys.modules if name.split(".")[0] in HOST]:
            del sys.modules[name]


def _enter_comfyui(folder: Path) -> None:
    sys.path.insert(0, str(folder))
    from comfy.cli_args import args

    args.cpu = True


@pytest.fixture(scope="session")
def as_model(pack):
    """From diffusers' transformer to a MODEL of the host with the same weights."""
    if not COMFYUI:
        return standin_host.as_model
    from sf_pack.tiny_flux import as_model

    return lambda transformer: as_model(transformer, pixels_a_latent=2)
