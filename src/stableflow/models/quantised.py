"""Quantised weights: GGUF files, and what diffusers and transformers are told to do while they load."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from stableflow.checks import check_choice
from stableflow.errors import LoadError, MissingExtraError
from stableflow.models.checkpoint import bare, check_weights, placed, placed_names
from stableflow.models.load_errors import load_errors


def load_gguf(path: Path, kind: Any, config: Any, dtype: torch.dtype, *, components: str, offline: bool) -> Any:
    """Return a transformer with the weights of a GGUF file, which stay as they are.

    Args:
        kind: diffusers' class of it.
        config: Of the components' own transformer.

    Raises:
        MissingExtraError: gguf is not installed.
        LoadError: The file is something else, diffusers reads none of this class, or a weight is missing or left over.
    """
    shapes = gguf_shapes(path)
    from accelerate import init_empty_weights
    from diffusers import GGUFQuantizationConfig
    from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES
    from diffusers.models.model_loading_utils import load_gguf_checkpoint

    if kind.__name__ not in SINGLE_FILE_LOADABLE_CLASSES:
        raise LoadError(f"{path}: diffusers reads no GGUF file of a {kind.__name__}. Use a .safetensors file.")
    with load_errors(str(path)):
        names = bare(shapes)
        found = placed_names(names.values(), kind.__name__, config)
        with init_empty_weights():
            expected = kind.from_config(config).state_dict()
        check_weights(dict.fromkeys(found, ()), dict.fromkeys(expected, ()), path=path, components=components)
        state = {names[name]: tensor for name, tensor in load_gguf_checkpoint(path).items()}
        return kind.from_single_file(
            placed(state, kind.__name__, config),
            config=components,
            subfolder="transformer",
            dtype=dtype,
            local_files_only=offline,
            quantization_config=GGUFQuantizationConfig(compute_dtype=dtype),
        )


def gguf_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a GGUF file's weights by name, from its header.

    Raises:
        MissingExtraError: gguf is not installed.
        LoadError: The file is no GGUF file.
    """
    if find_spec("gguf") is None:
        raise MissingExtraError("GGUF files need gguf: pip install 'stableflow[gguf]'.")
    from gguf import GGUFReader

    with load_errors(str(path)):
        return {str(tensor.name): tuple(int(n) for n in tensor.shape[::-1]) for tensor in GGUFReader(path).tensors}


KINDS = {"int8": "torchao", "fp8": "torchao", "nf4": "bitsandbytes"}
"""Kinds of weights by the library that makes them."""


def quantiser(kind: str, library: str, dtype: torch.dtype) -> Any:
    """Return the settings for weights of this kind.

    Args:
        kind: Of `KINDS`.
        library: "diffusers", or "transformers" for text encoders.
        dtype: That passes compute in.

    Raises:
        UnknownNameError: There is no such kind.
        MissingExtraError: What makes them is not installed.
    """
    check_choice("kind of quantised weights", kind, KINDS)
    needed = KINDS[kind]
    if find_spec(needed) is None:
        extra = "quantise" if needed == "torchao" else "nf4"
        raise MissingExtraError(f"Weights in {kind} need {needed}: pip install 'stableflow[{extra}]'.")
    settings = import_module(library)
    if kind == "nf4":
        return settings.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig

    return settings.TorchAoConfig(Int8WeightOnlyConfig() if kind == "int8" else Float8WeightOnlyConfig())


def quantise_weights(transformer: Any, quantiser: Any) -> None:
    """Do to a transformer that is loaded what diffusers does while it loads one from a folder."""
    from diffusers.quantizers import DiffusersAutoQuantizer
    from torchao.quantization import quantize_

    quantize_(transformer, quantiser.quant_type)
    transformer.hf_quantizer = DiffusersAutoQuantizer.from_config(quantiser)
