"""Text encoders and an autoencoder from files of their own: which part a file is, and every weight in its place."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stableflow.checks import check_path
from stableflow.errors import LoadError
from stableflow.models.checkpoint import check_weights, read_file, scaled, sections, state_shapes, what_it_is
from stableflow.models.components import check_complete, module_class
from stableflow.models.load_errors import load_errors

VOCABULARY = re.compile(r"(shared|token_embedding|embed_tokens|wte)\.weight$")
LEFT_OUT = re.compile(r"(^|\.)(logit_scale|position_ids|spiece_model|tekken_model)$")
VAE_PREFIXES = ("vae.", "first_stage_model.")
QUANT_CONV = {"encoder.quant_conv.": "quant_conv.", "decoder.post_quant_conv.": "post_quant_conv."}


def read_parts(
    files: Sequence[str | Path],
    location: str,
    index: Mapping[str, Any],
    dtype: torch.dtype,
    *,
    offline: bool,
    inside: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> dict[str, Any]:
    """Return parts of a pipeline from files, by the pipeline's names for them.

    Args:
        files: .safetensors files of text encoders and an autoencoder; later ones win.
        location: Folder or hub id that has the parts' configs.
        index: Its model_index.json.
        inside: Parts that came with the transformer in one file, by what messages call them.

    Raises:
        LoadError: A file is of no part of this model, or incomplete; says what it is.
    """
    given = dict(inside or {})
    for file in files:
        path = check_path("parts", file)
        if not path.is_file() or path.suffix != ".safetensors":
            raise LoadError(f"There is no .safetensors file at {file} (parts=). Check the path.")
        own = sections(read_file(path), path)
        given |= {str(path) if len(own) == 1 else f"{path}: {name}": state for name, state in own.items()}
    found = dict[str, Any]()
    for where, state in given.items():
        name, part = _part(where, state, location, index, dtype, offline)
        found[name] = part
    return found


def _part(
    where: str, state: Mapping[str, Tensor], location: str, index: Mapping[str, Any], dtype: torch.dtype, offline: bool
) -> tuple[str, nn.Module]:
    weights = scaled({k: v for k, v in state.items() if not LEFT_OUT.search(k)}, Path(where), dtype)
    rows = [tuple(tensor.shape) for name, tensor in weights.items() if VOCABULARY.search(name)]
    tried = list[str]()
    for name, kind in index.items():
        part_class = module_class(kind)
        if part_class is None or name == "transformer":
            continue
        if name.startswith("vae"):
            if not rows and any(key.startswith(("decoder.", *VAE_PREFIXES)) for key in weights):
                return name, _autoencoder(where, weights, part_class, location, name, dtype, offline)
            continue
        with load_errors(location, what=f"the config of its part {name}"):
            config = part_class.config_class.from_pretrained(location, subfolder=name, local_files_only=offline)
        own = getattr(config, "text_config", None) or config
        wanted = own.vocab_size, getattr(own, "hidden_size", None) or own.d_model
        tried.append(f"{name} ({part_class.__name__}, {wanted[0]} tokens of {wanted[1]} numbers)")
        if wanted in rows:
            return name, _text_encoder(where, weights, part_class, config, dtype)
    shown = f"a text encoder of {rows[0][0]} tokens of {rows[0][1]} numbers" if rows else what_it_is(weights)
    raise LoadError(
        f"{where} (parts=) is no part of {location}: it is {shown.removeprefix('is ')}, and the parts are "
        f"{', '.join(tried)} and the autoencoder."
    )


def _text_encoder(where: str, weights: Mapping[str, Tensor], part_class: Any, config: Any, dtype: torch.dtype) -> Any:
    """By transformers' own loading, which knows the names of earlier versions."""
    with load_errors(where, what="a text encoder (parts=)"):
        part, info = part_class.from_pretrained(
            None, config=config, state_dict=dict(weights), dtype=dtype, output_loading_info=True
        )
    check_complete(part, info, where=f"{where} (parts=)")
    return part.eval()


def _autoencoder(
    where: str,
    weights: Mapping[str, Tensor],
    part_class: Any,
    location: str,
    name: str,
    dtype: torch.dtype,
    offline: bool,
) -> nn.Module:
    from accelerate import init_empty_weights

    with load_errors(location, what=f"the config of its part {name}"):
        config = part_class.load_config(location, subfolder=name, local_files_only=offline)
    with init_empty_weights():
        part = part_class.from_config(config)
    expected = {key: tuple(weight.shape) for key, weight in part.state_dict().items()}
    state = (
        dict(weights)
        if set(weights) & set(expected) >= {"decoder.conv_norm_out.weight"}
        else _by_diffusers(weights, part_class, config, where)
    )
    check_weights(state_shapes(state), expected, path=Path(where), components=f"{location}, its part {name},")
    numbers = {key: weight.to(dtype) if weight.is_floating_point() else weight for key, weight in state.items()}
    part.load_state_dict(numbers, strict=True, assign=True)
    return part.eval()


def _by_diffusers(weights: Mapping[str, Tensor], part_class: Any, config: Any, where: str) -> dict[str, Tensor]:
    """The authors' names translated; what the translation does not know keeps its name, so that it is told."""
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    if "down_block_types" not in config:
        raise LoadError(
            f"{where} (parts=) is not in diffusers' layout, the only one that is read of a {part_class.__name__}. "
            "Leave it out: the components have one."
        )
    renamed = {_renamed(name): tensor for name, tensor in weights.items()}
    known = convert_ldm_vae_checkpoint(dict(renamed), config)
    rest = {name: tensor for name, tensor in renamed.items() if name.startswith("bn.")}
    if len(known) + len(rest) < len(renamed):
        raise LoadError(
            f"{where} (parts=) has {len(renamed)} weights, of which {len(known) + len(rest)} have a place in a "
            f"{part_class.__name__}. It is of another model: leave it out, the components have one."
        )
    return known | rest


def _renamed(name: str) -> str:
    for theirs, ours in QUANT_CONV.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name
