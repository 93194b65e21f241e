"""A pipeline from a folder or the hub, part by part: a part with a weight too few or too many is refused."""

import importlib
import re
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import nn

from stableflow.errors import LoadError
from stableflow.models.load_errors import load_errors, some
from stableflow.quiet import quietly
from stableflow.reading import short

LIBRARIES = ("diffusers", "transformers")


def load_pipeline(
    location: str,
    index: Mapping[str, Any],
    *,
    dtype: torch.dtype,
    offline: bool,
    revision: str | None,
    quantisers: Mapping[str, Any] | None = None,
    given: Mapping[str, Any] | None = None,
    what: str = "",
) -> Any:
    """Return diffusers' pipeline with all its parts.

    Args:
        index: The content of its model_index.json.
        quantisers: Settings for weights, by the library of a part: "diffusers" is the transformer's, "transformers"
            the text encoders'.
        given: Parts that are there already.
        what: What the pipeline is to the user, for messages.

    Raises:
        LoadError: A weight is missing, of another shape or left over; names part and weight.
    """
    parts: dict[str, Any] = {name: None for name, kind in index.items() if kind == [None, None]}  # SD3 without T5
    parts |= given or {}
    common = {"use_safetensors": True, "local_files_only": offline, "revision": revision}
    for name, kind in index.items():
        part_class = module_class(kind)
        if name in parts or part_class is None:
            continue
        settings = common | _quantised(name, kind[0], quantisers or {})
        with load_errors(f"{location}", what=f"its part {name}" + (f", {what}" if what else "")):
            part, info = part_class.from_pretrained(
                location, subfolder=name, dtype=dtype, output_loading_info=True, **settings
            )
        check_complete(part, info, where=f"{location}, its part {name}")
        parts[name] = part
    with load_errors(location, what=what):
        with quietly():  # the text encoders that its module imports tell of processors that nobody asked for
            pipeline_class = getattr(importlib.import_module("diffusers"), index["_class_name"])
        return pipeline_class.from_pretrained(location, dtype=dtype, **common, **parts)


def _quantised(name: str, library: str, quantisers: Mapping[str, Any]) -> dict[str, Any]:
    """What loading a part is told of its numbers; the autoencoder keeps its own."""
    found = quantisers.get(library) if name.startswith(("transformer", "text_encoder")) else None
    return {} if found is None else {"quantization_config": found}


def check_index(index: Any, where: str) -> Mapping[str, Any]:
    """Return what a model_index.json holds.

    Raises:
        LoadError: It names no class of pipeline.
    """
    if not isinstance(index, dict) or not isinstance(index.get("_class_name"), str):
        raise LoadError(
            f"{where} could not be loaded: its model_index.json names no pipeline, it holds {short(index)}."
        )
    return index


def module_class(kind: Any) -> Any:
    """Return the class of a part that has weights; None for tokenizers, schedulers and parts that are left out."""
    if not (isinstance(kind, list) and len(kind) == 2 and kind[0] in LIBRARIES and isinstance(kind[1], str)):
        return None
    found = getattr(importlib.import_module(kind[0]), kind[1], None)
    return found if isinstance(found, type) and issubclass(found, nn.Module) else None


def check_complete(part: nn.Module, info: Mapping[str, Any], where: str) -> None:
    """Raise LoadError unless a part that was loaded has every weight that its config describes, and no other."""
    nowhere = [name for name, weight in part.named_parameters() if weight.is_meta]
    missing = sorted({*info["missing_keys"], *nowhere})
    if missing:
        raise LoadError(
            f"{where} lacks {_count(missing)} that its config.json describes: {some(missing)}. The download or the "
            "conversion is incomplete: make it again."
        )
    wrong = sorted(str(key[0] if isinstance(key, tuple) else key) for key in info["mismatched_keys"])
    if wrong:
        raise LoadError(f"{where} has {_count(wrong)} of another shape than its config.json describes: {some(wrong)}.")
    left = _left_over(part, info["unexpected_keys"])
    if left:
        raise LoadError(
            f"{where} holds {_count(left)} for which its config.json has no layer: {some(left)}. Its config is of "
            "another model: take both from one place."
        )


def _left_over(part: nn.Module, unexpected: Collection[str]) -> list[str]:
    """Weights of further layers like those that there are; other extras, such as position ids, are harmless."""
    from diffusers import ModelMixin

    if isinstance(part, ModelMixin):
        ignored = getattr(part, "_keys_to_ignore_on_load_unexpected", None) or []
        return sorted(key for key in unexpected if not any(re.search(pattern, key) for pattern in ignored))
    stacks = {name for name, module in part.named_modules() if isinstance(module, nn.ModuleList)}
    return sorted(key for key in unexpected if re.split(r"\.\d+\.", key)[0].removeprefix("text_model.") in stacks)


def _count(names: Collection[str]) -> str:
    return "1 weight" if len(names) == 1 else f"{len(names)} weights"
