"""What a folder of weights weighs, from the headers of its files: no weight is read."""

import math
import re
from collections import Counter
from pathlib import Path

from safetensors import SafetensorError, safe_open

from stableflow.errors import LoadError
from stableflow.models.components import check_index
from stableflow.models.known import Known
from stableflow.models.load_errors import first_line
from stableflow.reading import read_json

BLOCK = re.compile(r"^(.+?blocks|layers)\.\d+\.")


def weigh_folder(folder: Path) -> Known:
    """Return a pipeline folder's parts and their parameters.

    Raises:
        LoadError: There is no model_index.json, or a file of weights is damaged.
    """
    pipeline = str(check_index(read_json(folder / "model_index.json"), str(folder))["_class_name"])
    billions, blocks = dict[str, float](), Counter[str]()
    for part in sorted(path for path in folder.iterdir() if path.is_dir()):
        sizes = _sizes(part)
        if sizes:
            billions[part.name] = sum(sizes.values()) / 1e9
        if part.name == "transformer":
            for name, size in sizes.items():
                if (found := BLOCK.match(name)) is not None:
                    blocks[found.group()] += size
    if "transformer" not in billions:
        raise LoadError(f"{folder} holds no weights of a transformer in .safetensors files.")
    config = read_json(folder / "transformer" / "config.json")
    width = config.get("dim") or config.get("num_attention_heads", 0) * config.get("attention_head_dim", 0)
    largest = max(blocks.values(), default=0) / 1e9 / billions["transformer"]
    return Known(str(folder), pipeline, "as its makers say", False, 0, 0.0, {"vae": 0.0} | billions, width, largest)


def _sizes(part: Path) -> dict[str, int]:
    """Numbers by weight, from all files of a part."""
    sizes = dict[str, int]()
    for path in sorted(part.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                sizes |= {name: math.prod(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise LoadError(f"{path} could not be read: {first_line(error)}. Download it again.") from error
    return sizes
