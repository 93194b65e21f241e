"""A transformer, or a whole model, from one file: which model it is of, its own parts, and the rest from elsewhere."""

import importlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from torch import Tensor

from stableflow.checks import check_path
from stableflow.errors import InputError, LoadError
from stableflow.models.bundled import BUNDLED, bundled_model
from stableflow.models.checkpoint import load_transformer, read_file, sections, what_it_is
from stableflow.models.components import check_index, load_pipeline
from stableflow.models.families import FAMILIES
from stableflow.models.known import KNOWN
from stableflow.models.load_errors import load_errors
from stableflow.models.part_files import read_parts
from stableflow.models.quantised import load_gguf, quantise_weights
from stableflow.reading import read_json

COMPONENTS = "the components (components=)"
TRANSFORMER_FILES = (".safetensors", ".gguf")
WIDTHS: Mapping[str, Mapping[int, str]] = {
    r"(^|\.)double_stream_modulation_img\.": {6144: "flux2-dev", 3072: "klein-4b", 4096: "klein-9b"},
    r"(^|\.)distilled_guidance_layer\.": {3072: "chroma"},
    r"(^|\.)(joint_blocks\.0\.x_block|pos_embed\.proj)\.": {1536: "sd3.5-medium", 2432: "sd3.5-large"},
    r"(^|\.)txt_norm\.": {3072: "qwen-image"},
    r"(^|\.)cap_embedder\.": {3840: "z-image"},
    r"(^|\.)(guidance_in|guidance_embedder)\.": {3072: "flux-dev"},
    r"(^|\.)(double_blocks|single_transformer_blocks)\.": {3072: "flux-schnell"},
}
"""How the transformers of known models are told: by a module that no other has, then by the width of a token."""

EMBEDDER = re.compile(r"(^|\.)(img_in|x_embedder|x_embedder\.proj|pos_embed\.proj|all_x_embedder\.2-1)\.weight$")


def guess_components(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """Return the hub id of the model that a transformer is of, by the names and shapes of its weights."""
    widths = [shape[0] for name, shape in shapes.items() if EMBEDDER.search(name) and shape]
    for pattern, names in WIDTHS.items():
        if any(re.search(pattern, name) for name in shapes):
            found = [KNOWN[names[width]].repository for width in widths if width in names]
            return found[0] if found else None
    return None


def load_single(
    path: Path,
    components: str | None,
    parts: Sequence[str | Path],
    dtype: torch.dtype,
    offline: bool,
    quantisers: Mapping[str, Any],
) -> Any:
    """Return a pipeline whose transformer, and what else is in the file, comes from it.

    Args:
        path: Of a .safetensors or .gguf file, as diffusers, the model's authors or ComfyUI write it.
        components: Folder or hub id of everything else; found by what the file holds when None.
        parts: Files of text encoders and an autoencoder, which win over the file's own.

    Raises:
        LoadError: A file is of something else or incomplete, or the components are of another model.
    """
    gguf = path.suffix == ".gguf"
    if gguf and "diffusers" in quantisers:
        raise InputError(f"{path.name} is quantised already; leave quantise out.")
    state: Mapping[str, Mapping[str, Tensor]] = {} if gguf else sections(read_file(path), path)
    location = _components_location(components or _guessed(path, state, gguf))
    index = components_index(location, offline)
    offline = offline or Path(location).is_dir()
    kind = getattr(importlib.import_module("diffusers"), index["transformer"][1])
    with load_errors(location, what=COMPONENTS):
        config = kind.load_config(location, subfolder="transformer", local_files_only=offline)
    if gguf:
        transformer = load_gguf(path, kind, config, dtype, components=location, offline=offline)
    else:
        with load_errors(str(path)):
            transformer = load_transformer(path, state["transformer"], kind, config, dtype, components=location)
    if "diffusers" in quantisers:
        quantise_weights(transformer, quantisers["diffusers"])
    given = {"transformer": transformer}
    inside = {f"{path.name}: {name}": own for name, own in state.items() if name != "transformer"}
    given |= read_parts(parts, location, index, dtype, offline=offline, inside=inside)
    return load_pipeline(
        location, index, dtype=dtype, offline=offline, revision=None, quantisers=quantisers, given=given,
        what=COMPONENTS,
    )  # fmt: skip


def _guessed(path: Path, state: Mapping[str, Mapping[str, Tensor]], gguf: bool) -> str:
    if gguf:
        from stableflow.models.quantised import gguf_shapes

        shapes = gguf_shapes(path)
    else:
        shapes = {name: tuple(tensor.shape) for name, tensor in state["transformer"].items()}
    found = guess_components(shapes)
    if found is None:
        raise LoadError(
            f"{path} {what_it_is(shapes)}, and it is not told of which model: say where the rest of it is with "
            "components= (--components), a folder or a hub id."
        )
    return found


def _components_location(components: str) -> str:
    """A folder that exists, or a hub id."""
    if components in KNOWN:
        return KNOWN[components].repository
    location = bundled_model(components) if components in BUNDLED else check_path("components", components)
    if location.is_dir():
        if not (location / "model_index.json").is_file():
            raise LoadError(f"The folder {location} (components=) holds no model: model_index.json is missing.")
        return str(location)
    if location.exists() or components.count("/") != 1 or components[0] in "./~":
        raise LoadError(f"There are no components at {components} (components=): no such folder. Check the path.")
    return components


def components_index(components: str, offline: bool) -> Mapping[str, Any]:
    """Return the model_index.json of the components.

    Raises:
        LoadError: No family reads such a pipeline.
    """
    with load_errors(components, what=COMPONENTS):
        index = model_index(Path(components) if Path(components).is_dir() else components, None, offline)
    if index["_class_name"] not in FAMILIES:
        raise LoadError(
            f"{components}, {COMPONENTS}, is a {index['_class_name']:.60}, which no family of this version reads: "
            f"{', '.join(FAMILIES)}."
        )
    return index


def model_index(location: Path | str, revision: str | None, offline: bool) -> Mapping[str, Any]:
    """Return the content of a pipeline's model_index.json, from a folder or the hub."""
    if isinstance(location, Path):
        index = location / "model_index.json"
    else:
        index = Path(hf_hub_download(location, "model_index.json", revision=revision, local_files_only=offline))
    try:
        content = read_json(index)
    except LoadError as error:
        raise LoadError(f"{location} could not be loaded: {error}") from error
    return check_index(content, str(location))
