"""LoRA files in every layout that is known, as updates of named modules: each acts in full, or the file is refused."""

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from stableflow.errors import LoadError, MissingExtraError
from stableflow.models.checkpoint import what_it_is
from stableflow.models.load_errors import load_errors, some
from stableflow.models.lora_file import find_lora, read_tensors
from stableflow.models.lora_names import LoraModules
from stableflow.models.loras import Lora, digest_of

REFUSED: Mapping[str, str] = {
    "LoKr (Kronecker products, by LyCORIS)": r"\.lokr_|\.oft_|\.glora|\.ia3",
    "LoHa (Hadamard products, by LyCORIS)": r"\.hada_",
    "LoCon with a middle matrix (Tucker, by LyCORIS)": r"\.lora_mid",
    "textual inversion": r"^emb_params|^string_to_param|^clip_[lg]$|learned_embeds",
}
DIFFERENCES = re.compile(r"\.(diff|diff_b|w_norm|b_norm|set_weight)$|lora_B(\.\w+)?\.bias$|lora_up\.bias$")
DOWN = re.compile(r"[._](lora_down|lora_A|lora\.down|down)(\.[^.]+)?\.weight$")
UP = re.compile(r"[._](lora_up|lora_B|lora\.up|up)(\.[^.]+)?\.weight$")
ALPHA = re.compile(r"\.(alpha|lora_alpha)$")
MAGNITUDE = re.compile(r"\.(dora_scale|lora_magnitude_vector(\.[^.]+)?(\.weight)?)$")
ROLES = {"down": DOWN, "up": UP, "alpha": ALPHA, "magnitude": MAGNITUDE}
READ = (
    "Read are diffusers' and peft's names (transformer.<module>.lora_A.weight), kohya's (lora_unet_<module>.lora_down."
    "weight), ai-toolkit's (diffusion_model.<module>.lora_A.weight) and the authors' module names in any of them"
)
OTHER_TEXT = ("lora_te2_", "lora_te3_", "text_encoder_2.", "text_encoder_3.")


@dataclass
class Update:
    """What a file holds for one module: the update is scale x up x down; a DoRA's magnitudes are the rows' norms."""

    parts: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class LoraFile:
    """A LoRA that was read and is in a layout that is known.

    Args:
        where: The file, for messages.
        name: The file without its folder, or where it is on the hub.
        config: peft's settings of it, where it has them.
    """

    where: str
    name: str
    state: Mapping[str, Tensor]
    config: Mapping[str, Any]


def read_lora(lora: str | Path, *, offline: bool) -> LoraFile:
    """Read a LoRA, before a model is loaded.

    Raises:
        MissingExtraError: peft is not installed.
        LoadError: Missing, damaged, a pickle, or in a layout that is not read; names file and layout.
    """
    if find_spec("peft") is None:
        raise MissingExtraError("LoRA weights need peft: pip install 'stableflow[lora]'.")
    path = find_lora(lora, offline=offline)
    where = f"The LoRA {path} (lora=)"
    state, config = read_tensors(path, where)
    _refuse_layouts(state, where)
    return LoraFile(where, path.name if Path(lora).exists() else str(lora), state, config)


def apply_loras(pipeline: Any, files: Sequence[LoraFile], weights: Sequence[float]) -> tuple[Lora, ...]:
    """Put LoRAs on a pipeline, each at its weight; a DoRA's weight acts before its rows are brought to their norm.

    Raises:
        LoadError: One is of another model, or does not take effect in full.
    """
    put = [
        Lora(file.name, digest_of(file.state), float(weight), f"lora_{number}")
        for number, (file, weight) in enumerate(zip(files, weights, strict=True))
    ]
    for lora, file in zip(put, files):
        apply_lora(pipeline, file, adapter=lora.adapter)
    if put:
        pipeline.set_adapters([lora.adapter for lora in put], [lora.weight for lora in put])
    return tuple(put)


def apply_lora(pipeline: Any, file: LoraFile, *, adapter: str = "lora_0") -> None:
    """Put a LoRA on a pipeline's transformer (and its first text encoder), whole.

    Args:
        adapter: What peft calls it.

    Raises:
        LoadError: It is of another model, or does not take effect in full.
    """
    updates = canonical(file.state, file.config, pipeline, file.where)
    if not hasattr(pipeline, "load_lora_weights"):
        raise LoadError(
            f"{file.where}: diffusers puts no LoRA on a {type(pipeline).__name__}. Merge it into a checkpoint."
        )
    with load_errors(file.where, advice="It may be of another model."), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several were asked for
        pipeline.load_lora_weights(dict(updates), adapter_name=adapter)
    _check_applied(pipeline, updates, file.where, adapter)
    _silence_others(pipeline.transformer, updates, adapter)
    if not any(bool(tensor.any()) for name, tensor in updates.items() if ".lora_B." in name):
        warnings.warn(f"{file.where} changes nothing: its updates are all zero.", stacklevel=2)


def canonical(
    state: Mapping[str, Tensor], config: Mapping[str, Any], pipeline: Any, where: str, *, convert: bool = True
) -> dict[str, Tensor]:
    """Return the updates under diffusers' names, `<part>.<module>.lora_A.weight` and `lora_B`, alpha multiplied in.

    Args:
        config: peft's settings of the file, where it has them.
        convert: Whether diffusers may translate names that are not known here.
    """
    modules = LoraModules(pipeline)
    found, unknown = dict[str, Tensor](), list[str]()
    for name, update in _grouped(state, where).items():
        scale = _scale(name, update, config, where)
        places = modules.places(name)
        if not places:
            unknown.append(name)
        for module, rows in places:
            down, up = update.parts["down"], rows(update.parts["up"]) * scale
            _check_shapes(modules.module(module), module, down, up, where)
            if f"{module}.lora_A.weight" in found:
                raise LoadError(f"{where} updates {module} twice, by its names in two layouts.")
            found[f"{module}.lora_A.weight"], found[f"{module}.lora_B.weight"] = down, up.contiguous()
            if "magnitude" in update.parts:
                found[f"{module}.lora_magnitude_vector"] = rows(_by_row(update, name, where)).contiguous()
    if unknown and convert and (renamed := _renamed_by_diffusers(state, pipeline)):
        return canonical(renamed, config, pipeline, where, convert=False)
    if unknown:
        shown = some(sorted(name for name in state if name.startswith(tuple(unknown))))
        raise LoadError(
            f"{where} updates modules that {type(pipeline.transformer).__name__} does not have: "
            f"{some(sorted(unknown))}. It was made for another model, or is in a layout that is not read: its keys are "
            f"{shown}. {READ}; modules here are such as {some(modules.names())}."
        )
    return found


def _renamed_by_diffusers(state: Mapping[str, Tensor], pipeline: Any) -> dict[str, Tensor] | None:
    """What diffusers makes of the layouts of other families; None where it can't, or where it loses an update.

    Its translation of FLUX.1's names is not asked: it supposes one width, and leaves out what it does not know.
    """
    if type(pipeline.transformer).__name__ == "FluxTransformer2DModel" or not hasattr(pipeline, "lora_state_dict"):
        return None
    try:
        renamed = type(pipeline).lora_state_dict(dict(state))
    except Exception:  # whatever its converters stumble over
        return None
    renamed = renamed[0] if isinstance(renamed, tuple) else renamed
    counts = [sum(bool(DOWN.search(name)) for name in names) for names in (state, renamed)]
    return renamed if counts[1] >= counts[0] else None


def _refuse_layouts(state: Mapping[str, Tensor], where: str) -> None:
    for layout, pattern in REFUSED.items():
        names = [name for name in state if re.search(pattern, name)]
        if names:
            raise LoadError(
                f"{where} is in the layout {layout}, which is not read: it holds {some(sorted(names))}. Merge it into "
                "a checkpoint or convert it to a plain LoRA first."
            )
    if not any(DOWN.search(name) or UP.search(name) for name in state):
        raise LoadError(f"{where} is no LoRA: it {what_it_is(state)}.")
    other = [name for name in state if name.startswith(OTHER_TEXT)]
    if any(bool(state[name].any()) for name in other if UP.search(name)):
        raise LoadError(f"{where} updates a second text encoder ({some(sorted(other))}), which is not read.")


def _grouped(state: Mapping[str, Tensor], where: str) -> dict[str, Update]:
    """The tensors by module."""
    updates, unknown = dict[str, Update](), list[str]()
    for key, tensor in state.items():
        if key.startswith(OTHER_TEXT):
            continue  # of zeros, as checked before
        role = next((role for role, end in ROLES.items() if end.search(key)), None)
        if role is None:
            if not (DIFFERENCES.search(key) and not bool(tensor.any())):
                unknown.append(key)
            continue
        name = ROLES[role].sub("", key)
        updates.setdefault(name, Update()).parts[role] = tensor
    if unknown:
        kind = "differences of biases or norms" if all(DIFFERENCES.search(key) for key in unknown) else "other weights"
        raise LoadError(f"{where} holds {kind} beside its updates, which are not read: {some(sorted(unknown))}.")
    for name, update in updates.items():
        if not {"down", "up"} <= set(update.parts):
            raise LoadError(f"{where} is incomplete: {name} has {', '.join(sorted(update.parts))} only.")
    without = sorted(name for name, update in updates.items() if "magnitude" not in update.parts)
    if without and len(without) < len(updates):
        raise LoadError(
            f"{where} is a DoRA that has magnitudes for some of its modules and none for {some(without)}, which peft "
            "does not take together. Train it with DoRA in all modules, or merge it into a checkpoint."
        )
    return updates


def _by_row(update: Update, name: str, where: str) -> Tensor:
    """The magnitudes of a DoRA, one for each row of its matrix."""
    magnitude, rows = update.parts["magnitude"], update.parts["up"].shape[0]
    if magnitude.numel() != rows or magnitude.shape[0] != rows:
        raise LoadError(
            f"{where} is a DoRA whose magnitudes of {name} have the shape {tuple(magnitude.shape)}: one a row, "
            f"{rows}, is read. Train it with magnitudes by output, or merge it into a checkpoint."
        )
    return magnitude.reshape(-1)


def _scale(name: str, update: Update, config: Mapping[str, Any], where: str) -> float:
    """alpha / rank; peft's settings say it for files without an alpha of their own."""
    down = update.parts["down"]
    if down.ndim != 2 or update.parts["up"].ndim != 2:
        raise LoadError(f"{where} updates convolutions ({name}), so it is of a UNet and not of a transformer.")
    rank = down.shape[0]
    if config.get("lora_bias") or config.get("modules_to_save"):
        raise LoadError(f"{where} uses biases or saved modules by peft's settings, which are not read.")
    if config.get("use_dora") and "magnitude" not in update.parts:
        raise LoadError(f"{where} is a DoRA by peft's settings, and {name} has no magnitudes. Download it again.")
    alpha = update.parts.get("alpha")
    given = alpha.float().item() if alpha is not None and alpha.numel() == 1 else _by_peft(name, config, rank)
    if alpha is not None and (alpha.numel() != 1 or not bool(alpha.float().isfinite().all())):
        raise LoadError(f"{where}: alpha of {name} is no number.")
    try:
        return float(given) / (rank**0.5 if config.get("use_rslora") else rank)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise LoadError(f"{where}: alpha of {name} is no number, or its rank is 0.") from error


def _by_peft(name: str, config: Mapping[str, Any], rank: int) -> Any:
    patterns = config.get("alpha_pattern")
    for pattern, alpha in patterns.items() if isinstance(patterns, dict) else ():
        if re.search(rf"(^|.*\.){re.escape(str(pattern).lstrip('^'))}$", name):
            return alpha
    return config.get("lora_alpha", rank)


def _check_shapes(module: nn.Module, name: str, down: Tensor, up: Tensor, where: str) -> None:
    weight = (module.out_features, module.in_features)  # pyright: ignore[reportAttributeAccessIssue]: linear
    if (up.shape[0], down.shape[1]) != weight or up.shape[1] != down.shape[0]:
        raise LoadError(
            f"{where} was made for another model: it updates {name} as a matrix of {up.shape[0]}x{down.shape[1]} by "
            f"ranks {up.shape[1]} and {down.shape[0]}, and here it is {weight[0]}x{weight[1]}."
        )


def _silence_others(transformer: nn.Module, updates: Mapping[str, Tensor], adapter: str) -> None:
    """Zero what peft added to modules whose names end alike: random numbers without effect, but not without a trace."""
    for name, module in transformer.named_modules():
        added: Any = getattr(module, "lora_A", {})
        if adapter in added and f"transformer.{name}.lora_A.weight" not in updates:
            for parameter in added[adapter].parameters():
                parameter.data.zero_()


def _check_applied(pipeline: Any, updates: Mapping[str, Tensor], where: str, adapter: str) -> None:
    """What was given must now act, as it was given: otherwise the libraries left some of it out."""
    for key in updates:
        part, _, rest = key.partition(".")
        if not rest.endswith(".lora_A.weight"):
            continue
        module = getattr(pipeline, part).get_submodule(rest.removesuffix(".lora_A.weight"))
        if getattr(module, "scaling", {}).get(adapter) != 1:
            raise LoadError(f"{where}: its update of {key.removesuffix('.lora_A.weight')} did not take effect.")
