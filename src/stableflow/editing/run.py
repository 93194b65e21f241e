"""One call of an editor's `edit`: all that a method may ask, and what it leaves."""

import time
import zlib
from collections.abc import Callable, Generator, Hashable, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from stableflow.editing.drift import drift
from stableflow.editing.passes import decode, laid_over, require_same_model, standard_noise
from stableflow.editing.path import Path, checked_guidance
from stableflow.editing.prompts import encode_prompts
from stableflow.editing.recipe import recipe_of
from stableflow.editing.references import References, referring
from stableflow.editing.result import EditResult
from stableflow.editing.source import Source
from stableflow.editing.tasks.base import Task
from stableflow.editing.where import region_of
from stableflow.editing.wishes import Edit, Wishes, as_edits
from stableflow.errors import InputError
from stableflow.flow.schedule import Schedule
from stableflow.flow.solvers import Solver
from stableflow.flow.time_grid import TimeGrid
from stableflow.models.base import Conditioning, FlowModel, Guidance, Intervention
from stableflow.region import Region
from stableflow.types import Images, Latents, Velocity

Made = TypeVar("Made")
SEAM = 3  # pixels over which a hard-edged region fades into the given picture


@runtime_checkable
class Method(Protocol):
    """What a run asks of its editor; `Editor` says what each means."""

    name: ClassVar[str]
    looks_for: ClassVar[str | None]
    strength_each: ClassVar[bool]

    @property
    def model(self) -> FlowModel: ...
    @property
    def negative(self) -> str | None: ...
    def acting(self, run: "Run", region: Region | None) -> Region | None: ...
    def times(self, run: "Run") -> TimeGrid: ...
    def step(self, run: "Run", z: Latents, t0: float, t1: float) -> Latents: ...
    def held(self, run: "Run", t: float) -> Latents: ...
    def pinned(self, run: "Run") -> Schedule: ...
    def finely(self, run: "Run") -> bool: ...
    def settings(self) -> dict[str, Any]: ...
    def shown(self, run: "Run", images: Images) -> tuple[Images, Region]: ...
    def notes(self, run: "Run") -> dict[str, Any]: ...


class Run:
    """What one edit starts from, asks of the model, counts, and returns.

    Args:
        editor: With the settings of this call.
        source: From any editor over the same checkpoint.
        wishes: One or more edited prompts or `Edit`s, or their conditioning.
        region: Where the edits may act; everywhere when None.
        together: They make one picture, each in its own region.
        task: What the editor was chosen for.
        reference: Pictures that the edits' passes read, where the model was trained with them; else the source's own.

    Raises FingerprintError for a source of another checkpoint or dtype, InputError for wishes that do not fit.
    """

    def __init__(
        self,
        editor: Method,
        source: Source,
        wishes: Wishes,
        *,
        region: Any = None,
        together: bool = False,
        task: Task | None = None,
        reference: References | None = None,
    ):
        self.started = time.perf_counter()
        self.editor, self.model = editor, editor.model
        if not isinstance(source, Source):
            raise InputError(f"source must come from generate, invert or Source.load, got {type(source).__name__}.")
        require_same_model(self.model, source)
        self.source = source.to(self.model.device)
        self.named: Source | None = None  # what results name, where edits walk the path of another source
        self.wishes: tuple[Edit, ...] = as_edits(wishes)
        if any(wish.strength is not None for wish in self.wishes) and not editor.strength_each:
            raise InputError(f"{editor.name} walks all edits of a call at one strength; give it instead of Edit's.")
        texts = wishes if isinstance(wishes, Conditioning) else [wish.prompt for wish in self.wishes]
        plain = encode_prompts(self.model, texts, negative=editor.negative)
        self.edits, self.references = referring(self.model, plain, reference, self.source.conditioning)
        self.nfe = {"source": source.nfe, "edit": 0}
        self._made: dict[Hashable, Any] = {}
        self.rows_a_pass = 0
        self._generator: torch.Generator | None = None
        self._solver_state: tuple[Any, Any] = (None, None)
        self.together, self.task = together, task
        looked_for = editor.looks_for if task is None or task.looks_for is None else task.looks_for
        self.region: Region | None = None
        self.asked: Region | None = region_of(self, looked_for if region is None else region)
        self.region = self.asked  # which a policy may ask for
        self.region = editor.acting(self, self.asked)
        if together and self.region is None:
            raise InputError("together=True lays edits over one another by region; give each its own, as Edit does.")

    @cached_property
    def grid(self) -> TimeGrid:
        """The times that the edits visit."""
        return self.editor.times(self)

    @property
    def clean(self) -> Latents:
        """The latents of the source picture, (1, channels, latent_height, latent_width)."""
        return self.source.latents

    def rows(self, latents: Float[Tensor, "1 *shape"]) -> Float[Tensor, "edits *shape"]:
        """Return one row an edit."""
        return latents.expand(len(self.edits), -1, -1, -1)

    def whole_grid(self, num_steps: int) -> TimeGrid:
        """Return the model's times from noise to image at the source's size."""
        made = self.source.fingerprint
        return self.model.time_grid(num_steps, made.height, made.width)

    def noise(self) -> Latents:
        """Return the next noise of the source's shape; edits share it, so they do not depend on others.

        Without a seed it follows from what made the source: the same source gets the same noise, which is not the
        noise that it was drawn from.
        """
        if self._generator is None:
            made, seed = self.source.fingerprint, getattr(self.editor, "seed", None)
            follows = zlib.crc32(repr((made.seed, made.image)).encode())
            self._generator = torch.Generator("cpu").manual_seed(follows if seed is None else seed)
        return standard_noise(self._generator, self.clean.shape, self.model.device)

    def noised(self, t: float) -> Latents:
        """Return (1 - t) clean + t noise, with the next noise."""
        return (1 - t) * self.clean + t * self.noise()

    def velocity(self, z: Latents, t: float, conditioning: Conditioning, guidance: Guidance) -> Latents:
        """Return the model's velocity at flow time t; the evaluation is counted."""
        self.nfe["edit"] += 1
        self.rows_a_pass = max(self.rows_a_pass, len(z))
        return self.model.velocity(z, t, conditioning, guidance_scale=guidance)

    def of_source(self, guidance: float | None) -> Velocity:
        """Return the velocity under the source's prompt."""
        scale = self.scale(guidance)
        return lambda z, t: self.velocity(z, t, self.source.conditioning, scale)

    def of_edits(self, guidance: Guidance) -> Velocity:
        """Return the velocity under the edits' prompts, a row each."""
        scales = self.once(("scales", repr(guidance)), lambda: self.scales(guidance))
        return lambda z, t: self.velocity(z, t, self.edits, scales)

    def of_both(self, source_guidance: float | None, guidance: Guidance) -> Velocity:
        """Return the velocity of a batch whose row 0 has the source's prompt and the others the edits'."""
        scales = self.once(("scales", repr(guidance)), lambda: self.scales(guidance))
        every = None if scales is None else [self.scale(source_guidance) or 0.0, *scales]
        both = self.once("both", lambda: Conditioning.concat([self.source.conditioning, self.edits]))
        return lambda z, t: self.velocity(z, t, both, every)

    def scale(self, guidance: float | None) -> float | None:
        """Return the scale to use: the model's usual one when None, none where the model takes none."""
        return checked_guidance(guidance, self.model.default_guidance_scale)

    def scales(self, guidance: Guidance) -> list[float] | None:
        """Return one scale an edit: its own, the one given, or the model's usual one; none where it takes none."""
        default, rows = self.model.default_guidance_scale, len(self.edits)
        given = list(guidance) if isinstance(guidance, Sequence) else [guidance] * rows
        if len(given) != rows:
            raise InputError(f"guidance_scale has {len(given)} values for {rows} edit(s); pass one, or one an edit.")
        own = [scale if wish.guidance_scale is None else wish.guidance_scale for wish, scale in zip(self.wishes, given)]
        checked = [checked_guidance(scale, default) for scale in own]
        return None if default is None else [scale or 0.0 for scale in checked]

    def advance(self, solver: Solver, velocity: Velocity, z: Latents, t0: float, t1: float) -> Latents:
        """Take one step of a solver; its memory from step to step is kept here."""
        known, state = self._solver_state
        if known is not solver:
            state = solver.init(velocity, t0, z)
        z, state = solver.step(velocity, t0, t1, z, state)
        self._solver_state = solver, state
        return z

    def once(self, name: Hashable, make: Callable[[], Made]) -> Made:
        """Return what was made in this run under a name, making it the first time."""
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    def path(self, settings: Sequence[str], find: Callable[[], Path]) -> Path:
        """Return the source's path that this method finds, found once for a source and kept with it.

        Args:
            settings: The editor's fields that the path depends on.
            find: Walks the path.
        """
        key = (self.editor.name, *((name, repr(getattr(self.editor, name))) for name in settings))
        return self.source.keep(key, find).to(self.model.device)

    def step(self, z: Latents, t0: float, t1: float) -> Latents:
        """Take the editor's step, and hold the outside of the region."""
        return self.settle(self.editor.step(self, z, t0, t1), t1)

    def settle(self, z: Latents, t: float) -> Latents:
        """Put what lies outside the region back where the source is at t, as far as the editor's policy says.

        Together, the edits then become one picture: see `laid_over`.
        """
        if self.region is None:
            return z
        pin = self.editor.pinned(self)(t)
        if pin == 0.0 and not self.together:
            return z
        held, (beside, edits) = self.editor.held(self, t), z.tensor_split([len(z) - len(self.edits)])
        if self.together:
            edits = laid_over(torch.lerp(held, edits[:1], 1 - pin), edits, self.free)
        else:
            edits = torch.lerp(held.expand_as(edits), edits, 1 - pin * (1 - self.free))
        return torch.cat([beside, edits])

    @cached_property
    def free(self) -> Float[Tensor, "edits 1 latent_height latent_width"]:
        """1 at latents of tokens that the region touches, or at those that it touches itself; 1 without a region."""
        if self.region is None:
            return self.rows(torch.ones_like(self.clean[:, :1]))
        made, fine = self.source.fingerprint, self.editor.finely(self)
        region = self.region.padded((made.height, made.width)) if fine else self.whole_region
        return region.latents((self.clean.shape[-2], self.clean.shape[-1]), "any").to(self.model.device)

    @cached_property
    def whole_region(self) -> Region:
        """The region at the size that the model works at, grown to whole tokens."""
        assert self.region is not None
        made = self.source.fingerprint
        return self.region.padded((made.height, made.width)).whole(self.model.pixel_multiple)

    @contextmanager
    def attached(self, interventions: Sequence[Intervention]) -> Generator[None]:
        """Open a block in which the interventions act and kept keys and values come ahead of their use."""
        with ExitStack() as stack:
            if self.source.store is not None:
                stack.enter_context(self.source.store.prefetching(self.model.device))
            if interventions:
                stack.enter_context(self.model.attach(*interventions))
            yield

    def result(self, latents: Latents, *, exact: bool = True) -> EditResult:
        """Decode the edits and write down what made them.

        Args:
            exact: Outside the region the given picture's own pixels take the place of the model's.
        """
        latents = latents[:1] if self.together else latents
        return self._shown(decode(self.model, latents, self.source.images.shape[-2:]), latents, exact)

    def unchanged(self, *, exact: bool = True) -> EditResult:
        """Return the source for every edit: what strength 0 is."""
        rows = len(self._titles)
        images, latents = (pixels.expand(rows, -1, -1, -1) for pixels in (self.source.images, self.clean))
        return self._shown(images, latents, exact)

    def _shown(self, images: Images, latents: Latents, exact: bool) -> EditResult:
        blend = None
        if self.region is not None and exact:
            images, blend = self.editor.shown(self, images)
        recipe = recipe_of(self, exact) | drift(self.given, images, self._open)
        return EditResult(self._titles, images, latents, self.named or self.source, recipe, blend)

    @property
    def given(self) -> Images:
        """The picture that was given, as the model draws it where none was, on the CPU."""
        return (self.source.images if self.source.given is None else self.source.given).cpu()

    @property
    def _open(self) -> Region | None:
        """Where each picture of the result may differ."""
        if self.region is None or not self.together:
            return self.region
        return Region(self.region.amount.amax(0, keepdim=True))

    def put_back(self, images: Images) -> tuple[Images, Region]:
        """Return pictures with the given one's own pixels outside the region, and how far they show."""
        assert self.region is not None
        shown = self._open or self.region
        blend = shown.feather(SEAM) if shown.is_hard else shown
        return blend.composite(self.given, images), blend

    @property
    def _titles(self) -> tuple[str, ...]:
        return ("; ".join(self.edits.prompts),) if self.together else self.edits.prompts
