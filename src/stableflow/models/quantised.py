"""Transformers of quantised weights: GGUF files, and torchao's on weights that are loaded."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from stableflow.errors import MissingExtraError
from stableflow.models.checkpoint import bare, check_weights, placed_names
from stableflow.models.load_errors import load_errors


def load_gguf(path: Path, kind: Any, config: Any, dtype: torch.dtype, *, components: str, offline: bool) -> Any:
    """Return a transformer with the weights of a GGUF file.

    Args:
        kind: diffusers' class of it.
        config: Of the components' own transformer.

    Raises:
        MissingExtraError: gguf is not installed.
        LoadError: The file is something else, or a weight is missing or left over; names it.
    """
    if find_spec("gguf") is None:
        raise MissingExtraError("GGUF files need gguf: pip install 'stableflow[gguf]'.")
    from accelerate import init_empty_weights
    from diffusers import GGUFQuantizationConfig
    from gguf import GGUFReader

    with load_errors(str(path)):
        names = [str(tensor.name) for tensor in GGUFReader(path).tensors]
        found = placed_names(bare(names, path).values(), config)
        with init_empty_weights():
            expected = kind.from_config(config).state_dict()
        check_weights(dict.fromkeys(found, ()), dict.fromkeys(expected, ()), path=path, components=components)
        return kind.from_single_file(
            str(path),
            config=components,
            subfolder="transformer",
            dtype=dtype,
            local_files_only=offline,
            quantization_config=GGUFQuantizationConfig(compute_dtype=dtype),
        )


def quantise_weights(transformer: Any, quantiser: Any) -> None:
    """Do to a transformer that is loaded what diffusers does while it loads one from a folder."""
    from diffusers.quantizers import DiffusersAutoQuantizer
    from torchao.quantization import quantize_

    quantize_(transformer, quantiser.quant_type)
    transformer.hf_quantizer = DiffusersAutoQuantizer.from_config(quantiser)
