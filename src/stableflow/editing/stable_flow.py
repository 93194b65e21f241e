"""Stable Flow: source and edits from one noise, the source's keys and values injected in the vital layers.

Source: Avrahami et al., "Stable Flow: Vital Layers for Training-Free Image Editing" (CVPR 2025), arXiv:2411.14430.
"""

import dataclasses
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from stableflow.editing.base import EDITORS
from stableflow.editing.fingerprint import ENCODED, Fingerprint, digest
from stableflow.editing.memory import Keep, make_store, needed_bytes
from stableflow.editing.passes import (
    CountedVelocity,
    decode,
    dtype_name,
    require_same_model,
    standard_noise,
)
from stableflow.editing.presets import SpeedPreset, make_preset
from stableflow.editing.prompts import PromptCache
from stableflow.editing.result import EditResult
from stableflow.editing.sampling import check_inversion, checked_guidance, edit_solver, guidance_rows, sampler_of
from stableflow.editing.source import Source
from stableflow.editing.versions import versions
from stableflow.errors import InputError
from stableflow.flow.integrate import Callback, StepRecord, count_evaluations, integrate
from stableflow.flow.inversion import AlignedReplay, Anchored, invert, nudge, unnudge
from stableflow.flow.skipping import every_nth, steady_times
from stableflow.flow.solvers import Solver, describe_solver, make_solver
from stableflow.flow.time_grid import TimeGrid
from stableflow.flow.trajectory import Trajectory
from stableflow.images import PictureLike, Prepared, prepare
from stableflow.interventions import InjectKV, KVStore, RecordKV, ReuseResidual, ShareKV
from stableflow.interventions.blend import WHOLE_FLOW, Blend
from stableflow.models.base import Conditioning, FlowModel
from stableflow.types import Latents
from stableflow.vital.presets import VITAL, default_nudge_scale, resolve_layers

REAL_EDIT_GUIDANCE = 3.0  # the paper's, for edits of an inverted picture


@EDITORS.register("stable-flow")
class StableFlow:
    """The editor.

    Args:
        model: From `load` or `wrap`.
        layers: Where keys and values are injected: "vital" for the preset of this checkpoint, or layer numbers.
        keep: What becomes of the source's keys and values. "device" keeps them beside the model, "cpu" in main
            memory, "share" keeps nothing and runs the source's row again with every edit; "auto" takes the first of
            these for which memory is free.
        preset: "exact", "balanced" or "fast": how real pictures are inverted unless `invert` is told otherwise, in
            which precision keys and values are kept, and what edits leave out.

    Example:
        >>> editor = StableFlow(load("tiny"))
        >>> source = editor.generate("a dog standing on the grass", seed=1)
        >>> editor.edit(source, ["a dog sitting on the grass"]).images.shape
        torch.Size([1, 3, 64, 64])
    """

    def __init__(
        self,
        model: FlowModel,
        *,
        layers: str | Sequence[int] = VITAL,
        keep: Keep = "auto",
        preset: str | SpeedPreset = "exact",
    ):
        self.model = model
        self.layers = resolve_layers(model, layers)
        self.keep: Keep = keep
        self.preset = make_preset(preset)
        self._prompts = PromptCache(model)

    def generate(
        self,
        prompt: str | Conditioning,
        *,
        seed: int | None = None,
        latents: Latents | None = None,
        num_steps: int = 15,
        guidance_scale: float | None = None,
        height: int | None = None,
        width: int | None = None,
        solver: str | Solver = "euler",
        callback: Callback | None = None,
    ) -> Source:
        """Draw a source picture from noise, keeping what its edits will need.

        Args:
            prompt: What to draw, or its conditioning (one row).
            seed: Of the noise (drawn on the CPU, so the same on every device); a random one when None.
            latents: The noise itself, (1, channels, latent_height, latent_width), instead of a seed.
            num_steps: Solver steps.
            guidance_scale: The model's usual scale when None.
            height, width: In pixels; the model's own size when None.
            solver: A name in `SOLVERS`, or a solver.
            callback: Told of every finished step.

        Raises:
            InputError: A setting is out of range.
        """
        height, width = self._size(height, width)
        seed, noise = self._noise(seed, latents, height, width)
        guidance_scale = checked_guidance(guidance_scale, self.model.default_guidance_scale)
        grid = self.model.time_grid(num_steps, height, width)
        solver = make_solver(solver)
        conditioning = self._prompts.encode(prompt)
        store = self._store(solver, grid, height, width)

        trajectory = Trajectory()
        trajectory.put(grid.times[0], noise)
        velocity = CountedVelocity(self.model, conditioning, guidance_scale)
        with self._recording(store):
            integrate(velocity, noise, grid, solver, callback=_keeping(trajectory, callback))
        settings = self._fingerprint(
            conditioning, height, width, grid, solver, guidance_scale=guidance_scale, seed=seed
        )
        return self._source(settings, conditioning, trajectory, {}, store, velocity.nfe)

    def invert(
        self,
        image: PictureLike,
        prompt: str | Conditioning,
        *,
        solver: str | Solver | None = None,
        num_steps: int | None = None,
        nudge_scale: float | None = None,
        inversion: Literal["aligned", "paper"] | None = None,
        guidance_scale: float | None = 1.0,
        height: int | None = None,
        width: int | None = None,
        callback: Callback | None = None,
    ) -> Source:
        """Find the noise and the path of a real picture.

        Args:
            image: A file, a PIL image, or a tensor (3, height, width) in [0, 1].
            prompt: What the picture shows, or its conditioning.
            solver: "fixed_point" is the paper's step, and the presets'. Aligned replay needs it; inversion="paper"
                takes any.
            num_steps: Solver steps; the preset's when None: 50 of the exact one.
            nudge_scale: The latents are multiplied by it before inversion and divided by it after editing; what the
                checkpoint's preset says when None, and the paper's 1.15 where there is no preset.
            inversion: "aligned" replays the source exactly on its recorded path. "paper" runs the solver back from
                the noise and puts the source back on its path after every step; it costs a second pass.
            guidance_scale: Of the source's own passes.
            height, width: Size to work at, in pixels; by default the picture's own, reduced to fit the model's
                usual size. The picture is padded to the model's multiple and cropped back.
            callback: Told of every finished inversion step.

        Raises:
            ImageError: The picture cannot be read.
            InputError: A setting is out of range, or the solver does not go with aligned replay.
        """
        nudge_scale = default_nudge_scale(self.model) if nudge_scale is None else nudge_scale
        solver = make_solver(self.preset.solver if solver is None else solver)
        num_steps = self.preset.num_steps if num_steps is None else num_steps
        inversion = self.preset.inversion if inversion is None else inversion
        check_inversion(inversion, solver)
        guidance_scale = checked_guidance(guidance_scale, self.model.default_guidance_scale)
        conditioning = self._prompts.encode(prompt)
        picture = prepare(
            image,
            multiple=self.model.pixel_multiple,
            max_side=max(self.model.default_size),
            height=height,
            width=width,
        )
        height, width = picture.pixels.shape[-2:]
        clean = nudge(self.model.encode_image(picture.pixels), nudge_scale)
        grid = self.model.time_grid(num_steps, height, width)
        velocity = CountedVelocity(self.model, conditioning, guidance_scale)
        if inversion == "aligned":
            store = self._store(AlignedReplay({}), grid, height, width)
            with self._recording(store):
                path = invert(velocity, clean, grid, solver, callback=callback)
        else:
            path = invert(velocity, clean, grid, solver, callback=callback)
            sampler = sampler_of(solver)
            store = self._store(sampler, grid, height, width)
            if store is not None:
                with self._recording(store):
                    integrate(velocity, path.trajectory.at(grid.times[0]), grid, Anchored(sampler, path.trajectory))
        settings = self._fingerprint(
            conditioning,
            height,
            width,
            grid,
            solver,
            guidance_scale=guidance_scale,
            image=digest(picture.pixels),
            inversion=inversion,
            nudge_scale=nudge_scale,
        )
        offsets = path.offsets if inversion == "aligned" else {}
        return self._source(settings, conditioning, path.trajectory, offsets, store, velocity.nfe, picture)

    def edit(
        self,
        source: Source,
        prompts: str | Sequence[str] | Conditioning,
        *,
        guidance_scale: float | Sequence[float] | None = None,
        layers: str | Sequence[int] | None = None,
        t_window: tuple[float, float] = WHOLE_FLOW,
        token_mask: Float[Tensor, "*edits token_rows token_columns"] | None = None,
        weight: float = 1.0,
        callback: Callback | None = None,
    ) -> EditResult:
        """Draw the edits of a source, all in one batch; the source is not drawn again unless it shares the batch.

        Args:
            source: From `generate`, `invert` or `Source.load`.
            prompts: One or more edited prompts, or their conditioning.
            guidance_scale: For all edits, or one an edit. By default the source's own, and 3 for a real picture.
            layers: Inject here instead of in the editor's layers; they must have been recorded.
            t_window: Flow times (low, high) in which to inject; 1 is noise. (0.4, 1) is early only.
            token_mask: Where to inject, in [0, 1] for each image token, (token_rows, token_columns) or one such map
                an edit; everywhere by default.
            weight: 1 replaces the edits' keys and values, 0 leaves them alone.
            callback: Told of every finished step.

        Raises:
            FingerprintError: The source belongs to another checkpoint, dtype or layer set.
            InputError: A setting is out of range.
        """
        started = time.perf_counter()
        layers = self.layers if layers is None else resolve_layers(self.model, layers)
        self._require_usable(source, layers)
        source = source.to(self.model.device)
        edits = self._prompts.encode(prompts)
        settings = source.fingerprint
        default = settings.guidance_scale
        if settings.inversion is not None and default is not None:
            default = REAL_EDIT_GUIDANCE
        guidance = guidance_rows(guidance_scale, default, len(edits))
        blend = Blend(weight, token_mask, t_window)

        if source.store is None:
            intervention = ShareKV(layers, blend)
            conditioning = Conditioning.concat([source.conditioning, edits])
            rows = None if guidance is None else [settings.guidance_scale or 0.0, *guidance]
        else:
            intervention = InjectKV(layers, source.store, blend)
            conditioning, rows = edits, guidance
        velocity = CountedVelocity(self.model, conditioning, rows)
        noise = source.noise.expand(len(conditioning), -1, -1, -1)
        others = [layer.index for layer in self.model.layers if layer.index not in layers]
        spared = self._spared(source)
        with ExitStack() as stack:
            if source.store is not None:
                stack.enter_context(source.store.prefetching(self.model.device))
            stack.enter_context(self.model.attach(intervention, ReuseResidual(others, spared)))
            latents = integrate(velocity, noise, source.grid, edit_solver(source), callback=callback)
        latents = unnudge(latents[-len(edits) :], settings.nudge_scale)
        images = decode(self.model, latents, source.images.shape[-2:])
        recipe = {
            "editor": {"name": "stable-flow"},
            "source": dataclasses.asdict(settings),
            "edits": list(edits.prompts),
            "guidance_scale": guidance,
            "layers": list(layers),
            "t_window": list(t_window),
            "token_mask": None if token_mask is None else digest(token_mask),
            "weight": weight,
            "keep": "share" if source.store is None else "recorded",
            "kv_precision": None if source.store is None else source.store.precision,
            "preset": self.preset.describe(),
            "spared_passes": len(spared),
            "nfe": {"source": source.nfe, "edit": velocity.nfe, "rows": len(conditioning)},
            "seconds": round(time.perf_counter() - started, 3),
            "versions": versions(),
        }
        return EditResult(edits.prompts, images, latents, source, recipe)

    def _size(self, height: int | None, width: int | None) -> tuple[int, int]:
        default_height, default_width = self.model.default_size
        height = default_height if height is None else height
        width = default_width if width is None else width
        self.model.check_size(height, width)
        return height, width

    def _noise(self, seed: int | None, latents: Latents | None, height: int, width: int) -> tuple[int | None, Latents]:
        shape = (1, *self.model.latent_shape(height, width))
        if latents is None:
            seed = secrets.randbelow(2**31) if seed is None else seed
            return seed, standard_noise(torch.Generator("cpu").manual_seed(seed), shape, self.model.device)
        if seed is not None:
            raise InputError("Both seed and latents were given; the latents are the noise, so leave the seed out.")
        if latents.shape != shape:
            raise InputError(
                f"latents must have shape {shape} for {height}x{width} pixels, got {tuple(latents.shape)}."
            )
        return None, latents.to(self.model.device, torch.float32)

    def _spared(self, source: Source) -> frozenset[float]:
        """The times at which edits do without the layers that nothing is injected in: the same for every edit."""
        alternate = every_nth(source.grid, self.preset.reuse_every)
        return alternate | steady_times(source.trajectory, source.grid, self.preset.reuse_tolerance)

    def _store(self, solver: Solver, grid: TimeGrid, height: int, width: int) -> KVStore | None:
        """An empty store for the passes of edits by this solver."""
        precision, aligned = self.preset.kv_precision, isinstance(solver, AlignedReplay)
        passes = grid.num_steps if aligned else count_evaluations(solver, grid)
        needed = needed_bytes(self.model, height, width, layers=len(self.layers), passes=passes, precision=precision)
        return make_store(self.keep, needed, self.model.device, precision=precision, last_visits=aligned)

    def _recording(self, store: KVStore | None) -> AbstractContextManager[None]:
        return nullcontext() if store is None else self.model.attach(RecordKV(self.layers, store))

    def _fingerprint(
        self,
        conditioning: Conditioning,
        height: int,
        width: int,
        grid: TimeGrid,
        solver: Solver,
        *,
        guidance_scale: float | None,
        seed: int | None = None,
        image: str | None = None,
        inversion: str | None = None,
        nudge_scale: float = 1.0,
    ) -> Fingerprint:
        return Fingerprint(
            model=self.model.name,
            checkpoint=self.model.checkpoint_hash(),
            dtype=dtype_name(self.model),
            prompt=conditioning.prompts[0],
            conditioning=digest(*conditioning.tensors.values()),
            seed=seed,
            image=image,
            height=height,
            width=width,
            times=grid.times,
            guidance_scale=guidance_scale,
            solver=describe_solver(solver),
            inversion=inversion,
            nudge_scale=nudge_scale,
            layers=self.layers,
            modifications=self.model.modifications,
        )

    def _source(
        self,
        settings: Fingerprint,
        conditioning: Conditioning,
        trajectory: Trajectory,
        offsets: Mapping[float, Tensor],
        store: KVStore | None,
        nfe: int,
        picture: Prepared | None = None,
    ) -> Source:
        clean = unnudge(trajectory.at(0.0), settings.nudge_scale)
        size = (settings.height, settings.width) if picture is None else picture.content_size
        return Source(
            fingerprint=settings,
            conditioning=conditioning,
            trajectory=trajectory,
            offsets=offsets,
            store=store,
            images=decode(self.model, clean, size),
            alpha=None if picture is None else picture.alpha,
            nfe=nfe,
        )

    def _require_usable(self, source: Source, layers: Sequence[int]) -> None:
        require_same_model(self.model, source)
        if source.fingerprint.inversion == ENCODED:
            raise InputError(
                "This source is a picture that was encoded and not inverted, so there is no noise to start its edits "
                "from. Make it with StableFlow(model).invert(image, prompt)."
            )
        if source.store is not None and not set(layers) <= set(source.fingerprint.layers):
            source.fingerprint.require(layers=tuple(layers))


def _keeping(trajectory: Trajectory, callback: Callback | None) -> Callback:
    def keep(record: StepRecord) -> None:
        trajectory.put(record.t1, record.latents)
        if callback is not None:
            callback(record)

    return keep
