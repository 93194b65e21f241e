"""What all stages share: schedules, deterministic batches, checkpoints, progress."""

import logging
import pickle
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stableflow.errors import LoadError
from stableflow.files import replacing
from stableflow.training.parallel import World, average_gradients, wait_for_all

log = logging.getLogger(__name__)


def learning_rate(step: int, num_steps: int, peak: float, *, warmup: int = 60, decay_from: float = 0.4) -> float:
    """Linear warm-up, constant, then linear to a hundredth of the peak."""
    done = step / num_steps
    decay = 1.0 if done < decay_from else (1 - done) / (1 - decay_from)
    return peak * min(1.0, (step + 1) / warmup) * max(decay, 0.01)


def step_generator(seed: int, step: int, world: World) -> torch.Generator:
    """Return the only source of randomness of one step in one process, so that a resumed run repeats it."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) * 64 + world.rank)


def draw_index(count: int, batch: int, generator: torch.Generator) -> Tensor:
    return torch.randint(count, (batch,), generator=generator)


def descend(loss: Tensor, optimiser: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], world: World) -> None:
    """Take one optimiser step on the gradients averaged over the processes and clipped to norm 1."""
    optimiser.zero_grad()
    loss.backward()
    average_gradients(parameters, world)
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimiser.step()


def load_checked(path: Path, device: torch.device | str = "cpu", *, mmap: bool = False) -> Any:
    """Return what `torch.save` wrote; tensors and plain values only, never code.

    Args:
        mmap: Leave the tensors on the disk, from which processes read them in common.

    Raises:
        LoadError: The file is damaged.
    """
    try:
        return torch.load(path, map_location=device, weights_only=True, mmap=mmap)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise LoadError(f"{path} is damaged ({_line(error)}). Delete it; the stage then makes it again.") from error


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


class Checkpoint:
    """One file that holds where a stage stands; each process keeps its own, since optimiser states are sharded.

    Args:
        path: Without the suffix for the process.
        state: Returns everything to keep.
        restore: Takes it back.
        regroup: Makes this process's state of those of all processes of a run with another number of them; without it,
            such a run's checkpoint is passed over.
    """

    def __init__(
        self,
        path: Path,
        world: World,
        state: Callable[[], Any],
        restore: Callable[[Any], Any],
        regroup: Callable[[list[Any]], Any] | None = None,
    ):
        self._stem, self._path = path, path.with_suffix(f".rank{world.rank}of{world.size}.pt")
        self._world, self._state, self._restore, self._regroup = world, state, restore, regroup

    def resume(self) -> int:
        """Return the number of finished steps, after restoring them."""
        if self._path.exists():
            return self._take([self._path], lambda states: states[0])
        firsts = sorted(self._stem.parent.glob(f"{self._stem.name}.rank0of*.pt"))
        if self._regroup is None or not firsts:
            return 0
        size = int(firsts[0].stem.rsplit("of", 1)[1])
        paths = [self._stem.with_suffix(f".rank{rank}of{size}.pt") for rank in range(size)]
        for path in paths:
            if not path.exists():
                raise LoadError(
                    f"{path} is missing: the run with {size} processes did not leave all its checkpoints. Put it back, "
                    f"or delete {firsts[0]} to start the stage again."
                )
        return self._take(paths, self._regroup)

    def _take(self, paths: Sequence[Path], whole: Callable[[list[Any]], Any]) -> int:
        parts = [load_checked(path, self._world.device) for path in paths]
        try:
            self._restore(whole([part["state"] for part in parts]))
            return int(parts[0]["step"])
        except (KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
            raise LoadError(
                f"{paths[0]} holds no checkpoint of this stage and recipe ({_line(error)}). Delete it to "
                "start the stage again, or choose another folder."
            ) from error

    def save(self, step: int) -> None:
        with replacing(self._path) as temporary:
            torch.save({"step": step, "state": self._state()}, temporary)
            wait_for_all(self._world)
        if self._regroup is not None:
            self._remove_former()

    def _remove_former(self) -> None:
        """Delete the checkpoints of the run with another number of processes that this one goes on from."""
        wait_for_all(self._world)  # until all processes have their own
        if self._world.leads:
            for former in self._stem.parent.glob(f"{self._stem.name}.rank*of*.pt"):
                if not former.stem.endswith(f"of{self._world.size}"):
                    former.unlink()


def fit(
    stage: str,
    model: nn.Module,
    loss_of: Callable[[int, torch.Generator], Tensor],
    *,
    num_steps: int,
    peak: float,
    seed: int,
    folder: Path,
    world: World,
) -> None:
    """Train or resume a whole model by AdamW; `loss_of` is given the step and its only source of randomness."""
    parameters = list(model.parameters())
    optimiser = torch.optim.AdamW(parameters, lr=peak, betas=(0.9, 0.98), weight_decay=0.05)
    checkpoint = Checkpoint(
        folder / stage,
        world,
        lambda: [model.state_dict(), optimiser.state_dict()],
        lambda kept: [model.load_state_dict(kept[0]), optimiser.load_state_dict(kept[1])],
    )
    progress = Progress(stage, num_steps, world)
    for step in range(checkpoint.resume(), num_steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, num_steps, peak, warmup=100, decay_from=0.1)
        loss = loss_of(step, step_generator(seed, step, world))
        descend(loss, optimiser, parameters, world)
        progress.tell(step, loss.item())
        if (step + 1) % 250 == 0 or step + 1 == num_steps:
            checkpoint.save(step + 1)


class Progress:
    """Logs the mean loss and the pace every so many steps."""

    def __init__(self, stage: str, num_steps: int, world: World, *, every: int = 100):
        self._stage, self._num_steps, self._world, self._every = stage, num_steps, world, every
        self._losses: list[float] = []
        self._since = time.perf_counter()

    def tell(self, step: int, loss: float) -> None:
        self._losses.append(loss)
        if (step + 1) % self._every == 0 and self._world.leads:
            seconds = (time.perf_counter() - self._since) / len(self._losses)
            mean = sum(self._losses) / len(self._losses)
            left = seconds * (self._num_steps - step - 1) / 60
            log.info(
                "%s step %d/%d loss %.4f, %.3f s a step, %.0f min left",
                self._stage, step + 1, self._num_steps, mean, seconds, left,
            )  # fmt: skip
            self._losses.clear()
            self._since = time.perf_counter()
