"""From a name, a folder, a hub id or a single file to a model."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import diffusers
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from safetensors import SafetensorError

from stableflow.errors import InputError, LoadError, MissingExtraError, UnknownNameError, unknown_name
from stableflow.models.base import FlowModel, Layer
from stableflow.models.families import FAMILIES, wrap
from stableflow.models.gate import add_gates

BUNDLED = ("tiny", "small")
TRANSFORMER_FILES = (".safetensors", ".gguf")
OFFLOAD = ("none", "model", "group")
QUANTISED = ("int8", "fp8")


def load(
    name: str | Path,
    *,
    device: str = "auto",
    dtype: torch.dtype | None = None,
    offload: str = "none",
    components: str = "black-forest-labs/FLUX.1-dev",
    lora: str | Path | None = None,
    revision: str | None = None,
    offline: bool = False,
    max_sequence_length: int | None = None,
    quantise: str | None = None,
    attention_backend: str | None = None,
    compile: bool = False,
) -> FlowModel:
    """Load a model.

    Args:
        name: The bundled "tiny" or "small", a folder in diffusers' layout of any family that is supported, a single
            FLUX.1 transformer file (.safetensors or .gguf), or a hub id such as "black-forest-labs/FLUX.1-dev".
        device: "auto" takes CUDA, then MPS, then the CPU.
        dtype: bfloat16 on an accelerator and float32 on the CPU when None. float16 overflows in FLUX.
        offload: "model" keeps one component at a time on the accelerator, "group" one block at a time.
        components: Folder or hub id of everything but the transformer, for a single transformer file.
        lora: LoRA weights to load on top (file, folder or hub id); needs the extra `lora`.
        revision: Branch, tag or commit of a hub id.
        offline: Never ask the hub; use what is in its local cache.
        max_sequence_length: Text tokens of every prompt; the tokenizer's limit when None (FLUX: 512).
        quantise: Keep the transformer's weights in "int8" or "fp8", by torchao; needs the extra `quantise`. GGUF files
            are quantised already.
        attention_backend: A kernel by diffusers' name, such as "native", "_flash_3_hub" or "sage"; diffusers makes it
            the process's default as well.
        compile: Compile the transformer's blocks with torch.compile; the first passes take minutes. Injection is
            compiled in; blocks in which something else is done or watched run uncompiled meanwhile.

    Raises:
        InputError: The attention backend is unknown or cannot run here, or this family's blocks cannot be compiled.
        UnknownNameError: Neither a bundled name, a path nor a hub id, or a pipeline of an unsupported class.
        LoadError: The files are missing, damaged, gated or out of reach; says which and what to do.
    """
    device = _choose_device(device)
    dtype = dtype or (torch.float32 if device == "cpu" else torch.bfloat16)
    location = _locate(name)
    quantiser = None if quantise is None else _quantiser(quantise)
    with _load_errors(str(name)):
        if isinstance(location, Path) and location.suffix in TRANSFORMER_FILES:
            pipeline = _from_transformer_file(location, components, dtype, offline, quantiser)
        else:
            pipeline = _from_folder(location, revision, dtype, offline, quantiser)
        if lora is not None:
            _load_lora(pipeline, lora, offline)
    _place(pipeline, device, offload)
    if attention_backend is not None:
        choose_attention(pipeline.transformer, attention_backend)
    known_as = location.name if isinstance(location, Path) else location  # recipes hold names, no local paths
    model = wrap(pipeline, name=known_as, max_sequence_length=max_sequence_length)
    if compile:
        compile_blocks(pipeline.transformer, model.layers)
    return model


def choose_attention(transformer: Any, backend: str) -> None:
    """Have a transformer's attention computed by one of diffusers' kernels.

    Raises:
        InputError: There is no such kernel, it cannot run here, or this family chooses for itself.
    """
    processors = [module.processor for module in transformer.modules() if hasattr(module, "processor")]
    if not any(hasattr(processor, "_attention_backend") for processor in processors):
        raise InputError(
            f"{type(transformer).__name__} computes attention in its own way; leave attention_backend out."
        )
    try:
        transformer.set_attention_backend(backend)
    except (ValueError, RuntimeError, ImportError) as error:
        raise InputError(f"attention_backend={backend!r} cannot be used: {_first_line(error)}") from error


def compile_blocks(transformer: Any, layers: Sequence[Layer], **settings: Any) -> None:
    """Compile the repeated blocks of a transformer, in place, with gates for what will be injected.

    Args:
        layers: The model's view of these blocks.
        settings: Of torch.compile.

    Raises:
        InputError: diffusers does not say which blocks of this family repeat.
    """
    if not getattr(transformer, "_repeated_blocks", None):
        raise InputError(f"diffusers cannot compile the blocks of a {type(transformer).__name__}; leave compile out.")
    add_gates(layers)
    transformer.compile_repeated_blocks(**settings)


def bundled_path(name: str) -> Path:
    """Return the folder of a bundled model."""
    return Path(str(resources.files("stableflow") / "bundled" / name))


def _choose_device(device: str) -> str:
    if device != "auto":
        return device
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _locate(name: str | Path) -> Path | str:
    """Return a path that exists, or a hub id."""
    if str(name) in BUNDLED:
        return _bundled(str(name))
    path = Path(name).expanduser()
    if path.exists():
        return _checked_path(path)
    text = str(name)
    if isinstance(name, Path) or path.suffix in TRANSFORMER_FILES or text.startswith((".", "/", "~")):
        raise LoadError(f"There is no model at {name}: no such file or folder. Check the path.")
    if text.count("/") != 1:
        raise unknown_name("model", text, [*_present(), "<folder>", "<organisation>/<repository> on the hub"])
    return text


def _bundled(name: str) -> Path:
    path = bundled_path(name)
    if not (path / "model_index.json").is_file():
        raise LoadError(
            f"The weights of {name!r} are not part of this version. Train them with `stableflow train STAGE --model "
            f"{name}` and pass the folder `runs/{name}/pipeline`; or take {', '.join(map(repr, _present()))}."
        )
    return path


def _present() -> list[str]:
    """The bundled models whose weights are there."""
    return [name for name in BUNDLED if (bundled_path(name) / "model_index.json").is_file()]


def _checked_path(path: Path) -> Path:
    if path.is_dir() and not (path / "model_index.json").is_file():
        raise LoadError(
            f"The folder {path} holds no model: model_index.json is missing. Pass a pipeline folder in diffusers' "
            "layout (as save_pretrained writes it), or a single transformer file (.safetensors or .gguf)."
        )
    if path.is_file() and path.suffix not in TRANSFORMER_FILES:
        raise LoadError(f"{path} is no model file; a transformer file ends in .safetensors or .gguf.")
    return path


def _quantiser(kind: str) -> Any:
    """Return diffusers' settings for weights of this kind."""
    if kind not in QUANTISED:
        raise unknown_name("kind of quantised weights", kind, QUANTISED)
    if find_spec("torchao") is None:
        raise MissingExtraError("Quantised weights need torchao: pip install 'stableflow[quantise]'.")
    from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig

    return diffusers.TorchAoConfig(Int8WeightOnlyConfig() if kind == "int8" else Float8WeightOnlyConfig())


def _from_folder(location: Path | str, revision: str | None, dtype: torch.dtype, offline: bool, quantiser: Any) -> Any:
    index = _model_index(location, revision, offline)
    class_name = index["_class_name"]
    if class_name not in FAMILIES:
        raise UnknownNameError(
            f"{location} is a {class_name}, which no family of this version reads. Supported pipelines: "
            f"{', '.join(FAMILIES)}. docs/extending.md has the recipe for adding a family."
        )
    pipeline_class = getattr(diffusers, class_name)
    given: dict[str, Any] = {name: None for name, kind in index.items() if kind == [None, None]}  # SD3 without T5
    if quantiser is not None:
        given["quantization_config"] = diffusers.PipelineQuantizationConfig(quant_mapping={"transformer": quantiser})
    return pipeline_class.from_pretrained(
        str(location), dtype=dtype, use_safetensors=True, local_files_only=offline, revision=revision, **given
    )


def _model_index(location: Path | str, revision: str | None, offline: bool) -> dict[str, Any]:
    if isinstance(location, Path):
        index = location / "model_index.json"
    else:
        index = Path(hf_hub_download(location, "model_index.json", revision=revision, local_files_only=offline))
    return json.loads(index.read_text(encoding="utf-8"))


def _from_transformer_file(path: Path, components: str, dtype: torch.dtype, offline: bool, quantiser: Any) -> Any:
    if path.suffix == ".gguf":
        if quantiser is not None:
            raise InputError(f"{path.name} is quantised already; leave quantise out.")
        quantiser = diffusers.GGUFQuantizationConfig(compute_dtype=dtype)
    quantisation = {} if quantiser is None else {"quantization_config": quantiser}
    transformer = diffusers.FluxTransformer2DModel.from_single_file(
        str(path),
        config=components,
        subfolder="transformer",
        dtype=dtype,
        local_files_only=offline or Path(components).is_dir(),
        **quantisation,
    )
    return diffusers.FluxPipeline.from_pretrained(
        components, transformer=transformer, dtype=dtype, use_safetensors=True, local_files_only=offline
    )


def _load_lora(pipeline: Any, lora: str | Path, offline: bool) -> None:
    if find_spec("peft") is None:
        raise MissingExtraError("LoRA weights need peft: pip install 'stableflow[lora]'.")
    pipeline.load_lora_weights(str(lora), local_files_only=offline)


def _place(pipeline: Any, device: str, offload: str) -> None:
    if offload not in OFFLOAD:
        raise unknown_name("offload choice", offload, OFFLOAD)
    if offload == "none":
        pipeline.to(device)
        return
    if device == "cpu":
        raise InputError(f"offload={offload!r} moves weights between CPU and accelerator; this run is on the CPU.")
    if offload == "model":
        pipeline.enable_model_cpu_offload(device=device)
    else:
        pipeline.enable_group_offload(
            onload_device=torch.device(device), offload_type="block_level", num_blocks_per_group=1
        )


@contextmanager
def _load_errors(name: str) -> Iterator[None]:
    """Turn what loading can raise into one message that says what to do."""
    try:
        yield
    except GatedRepoError as error:
        raise LoadError(
            f"{name} is gated: its licence must be accepted on the hub before it can be downloaded.\n"
            f"1. Open https://huggingface.co/{name} in a browser, log in and accept the licence.\n"
            "2. Run `hf auth login`, or set HF_TOKEN, with a token that may read gated repositories; then try again."
        ) from error
    except RepositoryNotFoundError as error:
        raise LoadError(
            f"The hub knows no model {name!r}, or it is private. Check the spelling; for a private model set HF_TOKEN."
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise LoadError(
            f"{name} is not in the local cache and cannot be fetched (offline, or the hub cannot be reached). Connect "
            f"once without --offline, or pass a local folder. Bundled and always there: {', '.join(_present())}."
        ) from error
    except (HfHubHTTPError, HFValidationError) as error:
        raise LoadError(f"The hub refused {name}: {_first_line(error)}") from error
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        if isinstance(error, (LoadError, UnknownNameError, InputError)):
            raise
        raise LoadError(
            f"{name} could not be loaded; a file is missing, damaged or of another model: {_first_line(error)} "
            "Download it again, or check it with `stableflow doctor`."
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
