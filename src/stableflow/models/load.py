"""From a name, a folder, a hub id or a single file to a model."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from stableflow.checks import check_choice, check_count, check_path
from stableflow.errors import InputError, LoadError, UnknownNameError, unknown_name
from stableflow.models.base import FlowModel
from stableflow.models.bundled import BUNDLED, bundled_model, bundled_path, present
from stableflow.models.compilation import choose_attention, compile_blocks
from stableflow.models.components import load_pipeline
from stableflow.models.devices import choose_device, choose_dtype
from stableflow.models.families import FAMILIES, wrap
from stableflow.models.hub import without_hub
from stableflow.models.known import KNOWN
from stableflow.models.layer_sets import fetch_set, local_sets
from stableflow.models.load_errors import load_errors
from stableflow.models.lora import apply_loras, read_lora
from stableflow.models.loras import Wanted, weighted
from stableflow.models.memory_plan import choose_plan, weighed
from stableflow.models.part_files import read_parts
from stableflow.models.quantised import quantiser
from stableflow.models.single_file import TRANSFORMER_FILES, load_single, model_index
from stableflow.quiet import import_libraries

__all__ = ["bundled_path", "choose_attention", "compile_blocks", "load"]

LONGEST_TEXT = 1_000_000  # tokens
OFFLOAD = ("none", "model", "group")


def load(
    name: str | Path,
    *,
    device: str = "auto",
    dtype: torch.dtype | None = None,
    offload: str = "none",
    components: str | None = None,
    parts: Sequence[str | Path] = (),
    lora: Wanted | Sequence[Wanted] | None = None,
    revision: str | None = None,
    offline: bool = False,
    max_sequence_length: int | None = None,
    quantise: str | None = None,
    quantise_text: str | None = None,
    tiled: bool = False,
    memory: str | None = None,
    attention_backend: str | None = None,
    compile: bool = False,
    layer_sets: str | None = None,
) -> FlowModel:
    """Load a model.

    Args:
        name: The bundled "tiny" or "small", a name in `KNOWN` such as "flux-dev", a folder in diffusers' layout of any
            family that is supported, a file of a transformer or of a whole model (.safetensors or .gguf), or a hub id.
        device: "auto" takes CUDA, then MPS, then the CPU.
        dtype: bfloat16 on an accelerator and float32 on the CPU when None. float16 overflows in FLUX.
        offload: "model" keeps one component at a time on the accelerator, "group" one block at a time.
        components: Folder, hub id or known name of everything that a file does not hold; the model's own repository,
            which a known model's file tells by itself, when None.
        parts: Files of text encoders and of an autoencoder to take instead (.safetensors); which is which is told by
            their weights.
        lora: LoRAs to load on top, one or a list: a file, folder or hub id each, with its weight behind it where that
            is not 1, as "detail.safetensors:0.8"; needs the extra `lora`.
        revision: Branch, tag or commit of a hub id.
        offline: Never ask the hub; use what is in its local cache.
        max_sequence_length: Text tokens of every prompt; the tokenizer's limit when None (FLUX: 512).
        quantise: Keep the transformer's weights in "int8" or "fp8" by torchao (extra `quantise`), or in "nf4" by
            bitsandbytes (extra `nf4`); GGUF files are.
        quantise_text: Likewise the text encoders'.
        tiled: Encode and draw pictures tile by tile.
        memory: Choose the four above to fit a card: "24g", "16g" and so on (`BUDGETS`), or "auto" for what is free.
        attention_backend: A kernel by diffusers' name, such as "native" or "sage"; it becomes the process's default.
        compile: Compile the transformer's blocks with torch.compile; the first passes take minutes. Injection is
            compiled in; blocks in which something else is done or watched run uncompiled meanwhile.
        layer_sets: A hub repository that is asked for the vital layers of this checkpoint, by its hash, where they are
            neither shipped nor in a local folder; see `stableflow vital push` and `pull`.

    Raises:
        InputError: The attention backend is unknown or cannot run here, or this family's blocks cannot be compiled.
        UnknownNameError: Neither a bundled name, a path nor a hub id, or a pipeline of an unsupported class.
        LoadError: The files are missing, damaged, gated or out of reach; says which and what to do.
    """
    import_libraries()
    device = choose_device(device)
    dtype = choose_dtype(dtype, device)
    if memory is not None:
        chosen = (offload != "none", quantise, quantise_text, tiled)
        offload, quantise, quantise_text, tiled = planned(name, memory, device, taken=any(chosen))
    _check_offload(offload, device)
    if max_sequence_length is not None:
        check_count("max_sequence_length", max_sequence_length, 1, LONGEST_TEXT)
    location = _locate(name)
    wanted = {"diffusers": quantise, "transformers": quantise_text}
    quantisers = {library: quantiser(kind, library, dtype) for library, kind in wanted.items() if kind is not None}
    single = isinstance(location, Path) and location.suffix in TRANSFORMER_FILES
    wanted_loras = weighted(lora)
    offline = without_hub(offline, location, *(where for where, _ in wanted_loras), components)
    updates = [read_lora(where, offline=offline) for where, _ in wanted_loras]
    if isinstance(location, Path) and single:
        pipeline = load_single(location, components, parts, dtype, offline, quantisers)
    else:
        pipeline = _from_folder(location, revision, dtype, offline, quantisers, parts)
    loras = apply_loras(pipeline, updates, [weight for _, weight in wanted_loras])
    _place(pipeline, device, offload, attention_backend)
    if tiled:
        pipeline.vae.enable_tiling()
    known_as = location.name if isinstance(location, Path) else location  # recipes hold names, no local paths
    model = wrap(pipeline, name=known_as, max_sequence_length=max_sequence_length, loras=loras)
    if compile:
        compile_blocks(pipeline.transformer, model.layers)
    if layer_sets is not None:
        _find_layer_set(layer_sets, model.checkpoint_hash(), offline)
    return model


def _find_layer_set(repository: str, checkpoint: str, offline: bool) -> None:
    """Have the layer set of a checkpoint in a local folder, where presets are looked for; warns where there is none."""
    if any(file.stem == checkpoint for file in local_sets()):
        return
    if fetch_set(repository, checkpoint, offline=offline) is None:
        warnings.warn(
            f"{repository} has no layers of this checkpoint ({checkpoint}). Measure them with `stableflow vital`, and "
            "share them with `stableflow vital push`.",
            stacklevel=3,
        )


def planned(
    name: str | Path, memory: str, device: str, *, taken: bool = False
) -> tuple[str, str | None, str | None, bool]:
    """Return offload, quantise, quantise_text and tiled, so chosen that the model fits a card.

    Args:
        taken: Whether one of them was chosen by hand.

    Raises:
        InputError: One was, the run is on the CPU, or nothing fits.
    """
    if taken:
        raise InputError(
            "memory chooses offload, quantise, quantise_text and tiled by itself; give it alone, or give those."
        )
    if torch.device(device).type == "cpu":
        raise InputError(f"memory={memory!r} plans for an accelerator; this run is on the CPU. Leave it out.")
    plan = choose_plan(weighed(name), memory, torch.device(device))
    transformer, text = (None if numbers == "bf16" else numbers for numbers in (plan.transformer, plan.text))
    return plan.offload, transformer, text, plan.tiled


def _locate(name: str | Path) -> Path | str:
    """Return a path that exists, or a hub id."""
    if str(name) in BUNDLED:
        return bundled_model(str(name))
    if str(name) in KNOWN:
        return KNOWN[str(name)].repository
    path = check_path("model", name)
    if path.exists():
        return _checked_path(path)
    text = str(name)
    if isinstance(name, Path) or path.suffix in TRANSFORMER_FILES or text.startswith((".", "/", "~")):
        raise LoadError(f"There is no model at {name}: no such file or folder. Check the path.")
    if text.count("/") != 1:
        raise unknown_name("model", text, [*present(), *KNOWN, "<folder>", "<organisation>/<repository> on the hub"])
    return text


def _checked_path(path: Path) -> Path:
    if path.is_dir() and not (path / "model_index.json").is_file():
        raise LoadError(
            f"The folder {path} holds no model: model_index.json is missing. Pass a pipeline folder in diffusers' "
            "layout (as save_pretrained writes it), or a single transformer file (.safetensors or .gguf)."
        )
    if path.is_file() and path.suffix not in TRANSFORMER_FILES:
        raise LoadError(f"{path} is no model file; a transformer file ends in .safetensors or .gguf.")
    return path


def _from_folder(
    location: Path | str,
    revision: str | None,
    dtype: torch.dtype,
    offline: bool,
    quantisers: Mapping[str, Any],
    parts: Sequence[str | Path],
) -> Any:
    with load_errors(str(location)):
        index = model_index(location, revision, offline)
    if index["_class_name"] not in FAMILIES:
        raise UnknownNameError(
            f"{location} is a {index['_class_name']:.60}, which no family of this version reads. Supported pipelines: "
            f"{', '.join(FAMILIES)}. docs/extending.md has the recipe for adding a family."
        )
    given = read_parts(parts, str(location), index, dtype, offline=offline)
    return load_pipeline(
        str(location), index, dtype=dtype, offline=offline, revision=revision, quantisers=quantisers, given=given
    )


def _check_offload(offload: str, device: str) -> None:
    check_choice("offload choice", offload, OFFLOAD)
    if offload != "none" and torch.device(device).type == "cpu":
        raise InputError(f"offload={offload!r} moves weights between CPU and accelerator; this run is on the CPU.")


def _place(pipeline: Any, device: str, offload: str, attention_backend: str | None) -> None:
    if offload == "none":
        pipeline.to(device)
    elif offload == "model":
        pipeline.enable_model_cpu_offload(device=device)
    else:
        pipeline.enable_group_offload(
            onload_device=torch.device(device), offload_type="block_level", num_blocks_per_group=1
        )
    if attention_backend is not None:
        choose_attention(pipeline.transformer, attention_backend)
