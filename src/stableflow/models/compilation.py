"""How a transformer computes: which attention kernel, and whether its blocks are compiled."""

from collections.abc import Sequence
from typing import Any

from stableflow.errors import InputError
from stableflow.models.base import Layer
from stableflow.models.gate import add_gates
from stableflow.models.load_errors import first_line


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
        raise InputError(f"attention_backend={backend!r} cannot be used: {first_line(error)}") from error


def attention_kernels(transformer: Any) -> set[str]:
    """Return the names of the kernels that a transformer's attention is computed by."""
    # Late: importing it asks which kernels are installed.
    from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry

    default = _AttentionBackendRegistry.get_active_backend()[0]
    processors = [module.processor for module in transformer.modules() if hasattr(module, "processor")]
    chosen = [getattr(processor, "_attention_backend", None) or default for processor in processors]
    return {AttentionBackendName(name).value for name in chosen}


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
