"""When a model may be used: by one thread at a time, with its weights at hand."""

from threading import RLock

from torch import nn

from stableflow.errors import InterventionError

PATIENCE = 600.0  # seconds for which a thread waits for its turn


class Turn:
    """Lets one thread at a time use a model; a thread that has it may take it again. A copy is a new one."""

    def __init__(self, patience: float = PATIENCE):
        self._patience, self._lock = patience, RLock()

    def __enter__(self) -> None:
        if not self._lock.acquire(timeout=self._patience):
            raise InterventionError(
                f"The model has been in use by another thread for {self._patience:.0f} s: while something is "
                "attached, or a pass runs, no other thread can use it. Load the model once a thread, or leave the "
                "attach block before waiting for threads that use the model."
            )

    def __exit__(self, *raised: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type["Turn"], tuple[float]]:
        return Turn, (self._patience,)


def check_weights_are_here(module: nn.Module) -> None:
    """Raise InterventionError if a module's weights are elsewhere between its passes, one layer at a time."""
    if any(parameter.is_meta for parameter in module.parameters()):
        raise InterventionError(
            "The transformer is offloaded layer by layer (enable_sequential_cpu_offload), so its weights are not there "
            "when they are asked for. Offload it by enable_model_cpu_offload or enable_group_offload instead, or load "
            "it with offload='model' or offload='group'."
        )
