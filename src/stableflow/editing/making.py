"""Sources made: drawn from noise, inverted from a picture, or only encoded; and their paths walked again."""

import secrets
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from stableflow.checks import LARGEST_GUIDANCE, check_number, check_seed
from stableflow.editing.fingerprint import ENCODED, Fingerprint, digest
from stableflow.editing.memory import KVMemory, check_fits, make_store, needed_bytes
from stableflow.editing.passes import CountedVelocity, decode, dtype_name, standard_noise
from stableflow.editing.path import Path, check_range, checked_guidance, replay_solver, sampler_of
from stableflow.editing.source import Source
from stableflow.errors import InputError
from stableflow.flow.integrate import Callback, StepRecord, count_evaluations, integrate
from stableflow.flow.inversion import AlignedReplay, Anchored, invert, nudge, unnudge
from stableflow.flow.solvers import Solver, describe_solver
from stableflow.flow.time_grid import TimeGrid
from stableflow.flow.trajectory import Trajectory
from stableflow.images import PictureLike, Prepared, prepare
from stableflow.interventions import KVStore, RecordKV
from stableflow.interventions.store import Precision
from stableflow.models.base import Conditioning, FlowModel
from stableflow.types import Latents


@dataclass(frozen=True)
class Recording:
    """Which keys and values a source keeps of its passes, and where.

    Args:
        layers: Indices in execution order.
        memory: "device", "cpu", "disk", "share" (none: the source runs beside its edits) or "auto".
        precision: "exact" or "fp8".
    """

    layers: tuple[int, ...] = ()
    memory: KVMemory = "auto"
    precision: Precision = "exact"

    def store(self, model: FlowModel, solver: Solver, grid: TimeGrid, height: int, width: int) -> KVStore | None:
        """Return an empty store for the passes of edits by this solver; None where the batch is shared."""
        aligned = isinstance(solver, AlignedReplay)
        passes = grid.num_steps if aligned else count_evaluations(solver, grid)
        needed = needed_bytes(model, height, width, layers=len(self.layers), passes=passes, precision=self.precision)
        return make_store(self.memory, needed, model.device, precision=self.precision, last_visits=aligned)

    def into(self, model: FlowModel, store: KVStore | None) -> AbstractContextManager[None]:
        """Open a block whose passes are recorded."""
        return nullcontext() if store is None else model.attach(RecordKV(self.layers, store))


@dataclass(frozen=True)
class Sampling:
    """How a source's own passes run.

    Args:
        num_steps: Solver steps.
        solver: Its update rule.
        guidance_scale: The model's usual scale when None.
        inversion, nudge_scale: Of a real picture: "aligned" or "paper", and the factor on its latents.
    """

    num_steps: int
    solver: Solver
    guidance_scale: float | None = None
    inversion: str | None = None
    nudge_scale: float = 1.0

    def __post_init__(self) -> None:
        describe_solver(self.solver)  # refused now and not after the run
        if self.guidance_scale is not None:
            check_number("guidance_scale", self.guidance_scale, 0, LARGEST_GUIDANCE)


def draw(
    model: FlowModel,
    conditioning: Conditioning,
    how: Sampling,
    recording: Recording,
    *,
    seed: int | None,
    latents: Latents | None,
    size: tuple[int, int],
    callback: Callback | None,
) -> Source:
    """Draw a picture from the noise of a seed, or from this noise, and keep its path."""
    height, width = size
    seed, noise = _noise(model, seed, latents, size)
    scale = checked_guidance(how.guidance_scale, model.default_guidance_scale)
    grid = model.time_grid(how.num_steps, height, width)
    store = recording.store(model, how.solver, grid, height, width)
    trajectory = Trajectory()
    trajectory.put(grid.times[0], noise)
    velocity = CountedVelocity(model, conditioning, scale)
    with recording.into(model, store):
        integrate(velocity, noise, grid, how.solver, callback=_keeping(trajectory, callback))
    made = replace(
        _identity(model, conditioning, size), times=grid.times, guidance_scale=scale,
        solver=describe_solver(how.solver), inversion=None, layers=recording.layers, seed=seed,
        noise=None if latents is None else digest(noise),
    )  # fmt: skip
    images = decode(model, trajectory.at(0.0), size)
    return Source(made, conditioning, Path(trajectory, {}, store), images, None, velocity.nfe)


def encode(
    model: FlowModel,
    conditioning: Conditioning,
    image: PictureLike,
    *,
    height: int | None,
    width: int | None,
) -> Source:
    """Take a real picture as a source; its path is found by those editors that ask for one."""
    picture = prepare(
        image, multiple=model.pixel_multiple, max_side=max(model.default_size), height=height, width=width
    )
    check_fits(model, picture.pixels.shape[-2], picture.pixels.shape[-1])
    clean = model.encode_image(picture.pixels)
    trajectory = Trajectory()
    trajectory.put(0.0, clean)
    size = picture.pixels.shape[-2], picture.pixels.shape[-1]
    made = replace(_identity(model, conditioning, size), image=digest(picture.pixels), picture=picture.content_size)
    images = decode(model, clean, picture.content_size)
    return Source(made, conditioning, Path(trajectory), images, picture.alpha, nfe=0, given=_content(picture))


def find_path(
    model: FlowModel, encoded: Source, how: Sampling, recording: Recording, callback: Callback | None = None
) -> Source:
    """Return an encoded source with the path from its noise: inverted by the solver of `how`."""
    made, conditioning = encoded.fingerprint, encoded.conditioning
    height, width = made.height, made.width
    scale = checked_guidance(how.guidance_scale, model.default_guidance_scale)
    grid = model.time_grid(how.num_steps, height, width)
    clean = nudge(encoded.path.at(0.0), how.nudge_scale)
    check_range(clean, model.dtype, how.nudge_scale)
    velocity = CountedVelocity(model, conditioning, scale)
    if how.inversion == "aligned":
        store = recording.store(model, AlignedReplay({}), grid, height, width)
        with recording.into(model, store):
            found = invert(velocity, clean, grid, how.solver, callback=callback)
    else:
        found = replace(invert(velocity, clean, grid, how.solver, callback=callback), offsets={})
        sampler = sampler_of(how.solver)
        store = recording.store(model, sampler, grid, height, width)
        if store is not None:
            with recording.into(model, store):
                integrate(velocity, found.trajectory.at(grid.times[0]), grid, Anchored(sampler, found.trajectory))
    made = replace(
        made, times=grid.times, guidance_scale=scale, solver=describe_solver(how.solver), inversion=how.inversion,
        nudge_scale=how.nudge_scale, layers=recording.layers,
    )  # fmt: skip
    path = Path(found.trajectory, found.offsets, store)
    images = decode(model, unnudge(path.at(0.0), how.nudge_scale), encoded.images.shape[-2:])
    return replace(encoded, fingerprint=made, path=path, images=images, nfe=encoded.nfe + velocity.nfe)


def record_again(model: FlowModel, source: Source, recording: Recording) -> tuple[Path, int]:
    """Walk a source's path once more and keep other keys and values; returns the path and the evaluations."""
    made, path = source.fingerprint, source.path
    solver = replay_solver(made, path)
    counted = solver.solver if isinstance(solver, Anchored) else solver
    store = recording.store(model, counted, source.grid, made.height, made.width)
    if store is None:
        return replace(path, store=None), 0
    velocity = CountedVelocity(model, source.conditioning, made.guidance_scale)
    with recording.into(model, store):
        integrate(velocity, path.at(made.times[0]), source.grid, solver)
    return replace(path, store=store), velocity.nfe


def check_noise(model: FlowModel, seed: int | None, latents: Latents | None, size: tuple[int, int]) -> None:
    """Raise InputError unless a seed, latents of this size in pixels, or none of both is given."""
    height, width = size
    shape = (1, *model.latent_shape(height, width))
    if seed is not None:
        check_seed("seed", seed)
    if latents is None:
        return
    if seed is not None:
        raise InputError("Both seed and latents were given; the latents are the noise, so leave the seed out.")
    if not isinstance(latents, Tensor) or latents.shape != shape:
        given = tuple(latents.shape) if hasattr(latents, "shape") else latents
        raise InputError(
            f"latents must be a tensor of shape {shape} for {height}x{width} pixels, got {type(latents).__name__} "
            f"{given}."
        )
    if not latents.is_floating_point() or not bool(latents.isfinite().all()):
        raise InputError(f"latents must be finite floats, got {latents.dtype} with NaN, infinity or whole numbers.")


def _noise(
    model: FlowModel, seed: int | None, latents: Latents | None, size: tuple[int, int]
) -> tuple[int | None, Latents]:
    if latents is None:
        seed = secrets.randbelow(2**31) if seed is None else check_seed("seed", seed)
        shape = (1, *model.latent_shape(*size))
        return seed, standard_noise(torch.Generator("cpu").manual_seed(seed), shape, model.device)
    return None, latents.to(model.device, torch.float32)


def _identity(model: FlowModel, conditioning: Conditioning, size: tuple[int, int]) -> Fingerprint:
    """What every source says of its model and prompt, without a path."""
    return Fingerprint(
        model=model.name,
        checkpoint=model.checkpoint_hash(),
        dtype=dtype_name(model),
        prompt=conditioning.prompts[0],
        conditioning=digest(*conditioning.tensors.values()),
        seed=None,
        image=None,
        height=size[0],
        width=size[1],
        times=(0.0,),
        guidance_scale=None,
        solver={},
        inversion=ENCODED,
        nudge_scale=1.0,
        layers=(),
        modifications=model.modifications,
        text_length=getattr(model, "max_sequence_length", None),
    )


def _content(picture: Prepared) -> Tensor:
    height, width = picture.content_size
    return picture.pixels[..., :height, :width]


def _keeping(trajectory: Trajectory, callback: Callback | None) -> Callback:
    def keep(record: StepRecord) -> None:
        trajectory.put(record.t1, record.latents)
        if callback is not None:
            callback(record)

    return keep
