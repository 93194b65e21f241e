"""A single file of a transformer: every weight in its place and at its scale, or refused with the reason."""

import json
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from stableflow.errors import LoadError
from stableflow.models.authors_names import LEFT_OUT, authors_places
from stableflow.models.load_errors import first_line, some

FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
FP8 = (torch.float8_e4m3fn, torch.float8_e5m2)
PREFIXES = ("_orig_mod.", "module.", "model.diffusion_model.", "diffusion_model.", "transformer.", "model.")
SCALES = (".scale_weight", ".weight_scale")  # what a weight in fp8 is multiplied by
UNUSED_SCALES = (".scale_input", ".input_scale")  # for kernels that compute in fp8
LAYOUT_MARK = "scaled_fp8"
SECTIONS = {"model.diffusion_model": "transformer", "vae": "vae", "first_stage_model": "vae"}
SECTION = re.compile(
    r"^(model\.diffusion_model|vae|first_stage_model|text_encoders\.(\w+))\.(transformer\.(?!\w+_blocks))?"
)
"""How ComfyUI names the parts of a whole model's file."""

KINDS: Mapping[str, str] = {
    "a LoRA": r"lora_|\.lora\.|lokr_|hada_|\.dora_scale|\.diff_?b?$",
    "a VAE": r"^(encoder|decoder)\.(up|down|mid|conv)|quant_conv",
    "a whole transformer": r"^(single_)?transformer_blocks\.|^(double|single)_blocks\.",
    "a text encoder": r"^(text_model\.|encoder\.block\.|shared\.weight|model\.embed_tokens|embeddings\.token)",
    "a UNet (Stable Diffusion)": r"input_blocks|^down_blocks\.|^up_blocks\.",
    "a ControlNet": r"controlnet_|input_hint_block",
    "a transformer of Stable Diffusion 3": r"joint_blocks|pos_embed\.proj",
}


def load_transformer(
    path: Path, state: Mapping[str, Tensor], kind: type, config: Any, dtype: torch.dtype, *, components: str
) -> nn.Module:
    """Return a transformer with the weights of a file, in the authors' layout or in diffusers'.

    Args:
        path: The file, for messages.
        state: What it holds of the transformer, without prefixes.
        kind: diffusers' class of it.
        config: Of the components' own transformer.
        components: Where the config is from, for messages.

    Raises:
        LoadError: The file is something else, or a weight is missing, of another shape, left over or in a form that is
            not read; names it.
    """
    from accelerate import init_empty_weights

    with init_empty_weights():
        transformer: Any = kind.from_config(config)  # pyright: ignore[reportAttributeAccessIssue]: diffusers'
    expected = {name: tuple(weight.shape) for name, weight in transformer.state_dict().items()}
    own = placed(scaled(state, path, dtype), kind.__name__, transformer.config)
    check_weights(state_shapes(own), expected, path=path, components=components)
    transformer.load_state_dict({name: weight.to(dtype) for name, weight in own.items()}, strict=True, assign=True)
    return transformer.eval()


def check_weights(
    found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], *, path: Path, components: str
) -> None:
    """Raise LoadError unless a file's weights are those that the config asks for.

    Args:
        found, expected: Shapes by name; an empty shape fits all.
    """
    if not set(found) & set(expected):
        raise LoadError(f"{path} {what_it_is(found)}, not the transformer that {components} describes.")
    missing, extra = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing and all("guidance" in name for name in missing):
        raise LoadError(
            f"{path} has no guidance embedder ({some(missing)}): it is a model without guidance, as "
            f"FLUX.1-schnell, and {components} describes one with. Pass the components of its own model."
        )
    if missing:
        raise LoadError(
            f"{path} lacks {len(missing)} of the {len(expected)} weights that {components} describes: {some(missing)}. "
            "The file is incomplete or of another model: download it again, or pass the components of its own model."
        )
    if extra:
        raise LoadError(
            f"{path} holds {len(extra)} weights that {components} has no place for: {some(extra)}. Pass the components "
            "of its own model."
        )
    for name, shape in found.items():
        if shape and expected[name] and shape != expected[name]:
            raise LoadError(
                f"{path}: {name} has the shape {shape}, and {components} describes {expected[name]}. The file is of "
                "another model or damaged: pass the components of its own model."
            )


def what_it_is(names: Iterable[str]) -> str:
    """Return "is a LoRA", or what else a file looks like by the names of its weights."""
    names = list(names)
    if not names:
        return "holds no weights at all"
    for kind, pattern in KINDS.items():
        if any(re.search(pattern, name) for name in names):
            return f"is {kind}"
    return f"holds weights of another kind ({some(names)})"


def bare(names: Iterable[str]) -> dict[str, str]:
    """Return names without the prefixes that all of them share, by the names with them."""
    found = {name: name for name in names}
    while found and (prefix := next((p for p in PREFIXES if all(n.startswith(p) for n in found.values())), None)):
        found = {name: short.removeprefix(prefix) for name, short in found.items()}
    return found


def read_file(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a .safetensors file.

    Raises:
        LoadError: It is none, or cut off.
    """
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise LoadError(
            f"{path} could not be loaded: it is no .safetensors file, or it is cut off ({first_line(error)}). Download "
            "it again; a web page that was saved instead of the file looks like this."
        ) from error
    if not state:
        raise LoadError(f"{path} {what_it_is(state)}.")
    return state


def sections(state: Mapping[str, Tensor], path: Path) -> dict[str, dict[str, Tensor]]:
    """Return what a file holds by part, each without prefixes: "transformer" alone, or the parts of a whole model."""
    found = dict[str, dict[str, Tensor]]()
    for name, tensor in state.items():
        match = SECTION.match(name)
        part, short = (
            ("", name) if match is None else (SECTIONS.get(match[1], match[2] or match[1]), name[match.end() :])
        )
        found.setdefault(part, {})[short] = tensor
    rest = found.pop("", {})
    if rest and "transformer" in found:
        warnings.warn(f"{path.name} holds weights that are not read: {some(sorted(rest))}.", stacklevel=2)
    elif rest:
        found = {"transformer": rest, **found}
    if "transformer" in found:
        names = bare(found["transformer"])
        found["transformer"] = {short: found["transformer"][name] for name, short in names.items()}
    return found


def scaled(state: Mapping[str, Tensor], path: Path, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the weights as floats, those in fp8 multiplied by their scales.

    Raises:
        LoadError: A scale has no weight, or a weight no scale, or a form of quantisation is not read.
    """
    scales = {name: name.removesuffix(end) + ".weight" for name in state for end in SCALES if name.endswith(end)}
    unused = [name for name in state if name.endswith(UNUSED_SCALES) or name == LAYOUT_MARK]
    _check_formats(state, path)
    skipped = {*scales, *unused, *(name for name in state if name.endswith(".comfy_quant"))}
    weights = {name: tensor for name, tensor in state.items() if name not in skipped}
    lost = [name for name, weight in scales.items() if weight not in weights]
    unscaled = [name for name, tensor in weights.items() if tensor.dtype in FP8 and name.endswith(".weight")]
    unscaled = [name for name in unscaled if name not in scales.values()]
    if lost or ((scales or LAYOUT_MARK in state) and unscaled):
        raise LoadError(
            f"{path} is in scaled fp8, and its scales do not fit its weights: {some(lost or unscaled)} has no "
            "counterpart. The file is incomplete: download it again."
        )
    for scale, weight in scales.items():
        weights[weight] = _times(weights[weight], state[scale], scale, path).to(dtype)
    counters = [name for name in weights if name.endswith(".num_batches_tracked")]
    wrong = [name for name, tensor in weights.items() if tensor.dtype not in FLOATS + FP8 and name not in counters]
    if wrong:
        raise LoadError(
            f"{path} is quantised in a way that is not read here: {some(wrong)} is {weights[wrong[0]].dtype}. Use a "
            "file in bfloat16, fp8 or GGUF."
        )
    return {name: tensor.to(dtype) if tensor.dtype in FP8 else tensor for name, tensor in weights.items()}


def _check_formats(state: Mapping[str, Tensor], path: Path) -> None:
    marks = (".weight_scale_inv", ".weight_scale_2", ".absmax", ".quant_map", ".weight_zero_point", ".svdq_")
    wrong = [name for name in state if any(mark in name for mark in (*marks, "quant_state"))]
    for name in (name for name in state if name.endswith(".comfy_quant")):
        try:
            form = json.loads(bytes(state[name].to(torch.uint8).tolist())).get("format")
        except (ValueError, AttributeError, RecursionError):
            form = None
        if form != "float8_e4m3fn":
            wrong.append(name)
    if wrong:
        raise LoadError(
            f"{path} is quantised in a way that is not read here: it holds scales such as {some(wrong)}. Use a file in "
            "bfloat16, in fp8 with one scale a weight, or GGUF."
        )


def _times(weight: Tensor, scale: Tensor, name: str, path: Path) -> Tensor:
    if scale.numel() == 1:
        return weight.float() * scale.float().reshape(())
    if scale.numel() == weight.shape[0] and weight.ndim == 2:
        return weight.float() * scale.float().reshape(-1, 1)
    raise LoadError(
        f"{path}: the scale {name} has the shape {tuple(scale.shape)} for a weight of {tuple(weight.shape)}; one "
        "number a weight, or one a row, is read."
    )


def placed(state: Mapping[str, Tensor], kind: str, config: Any) -> dict[str, Tensor]:
    """Return a state with diffusers' names; what has no place keeps its name.

    Args:
        kind: diffusers' class of the transformer.
        config: Of the transformer.
    """
    places, found = authors_places(kind, config), dict[str, Tensor]()
    for name, tensor in state.items():
        if name in LEFT_OUT:
            continue
        module, _, leaf = name.rpartition(".")
        if module in places:
            leaf = "weight" if leaf == "scale" else leaf
            found |= {f"{target}.{leaf}": rows(tensor).contiguous() for target, rows in places[module]}
        else:
            found[f"{module}.weight" if leaf == "scale" and places else name] = tensor
    return found


def placed_names(names: Iterable[str], kind: str, config: Any) -> set[str]:
    """Return the names alone, as `placed` gives them."""
    return set(placed(dict.fromkeys(names, torch.empty(0)), kind, config))


def state_shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shapes by name."""
    return {name: tuple(tensor.shape) for name, tensor in state.items()}
