"""What an editor is: where its edits start and how they step. The loop around that is the same for all."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from stableflow.checks import check_flag, check_steps
from stableflow.editing.checked import check_callback, check_editor, checked_size
from stableflow.editing.making import Recording, Sampling, check_noise, draw, encode, find_path
from stableflow.editing.path import check_inversion, check_nudge
from stableflow.editing.presets import SpeedPreset, make_preset
from stableflow.editing.prompts import source_prompt
from stableflow.editing.result import EditResult
from stableflow.editing.run import Run
from stableflow.editing.settable import Settable
from stableflow.editing.source import Source
from stableflow.editing.tasks.base import Task, as_task
from stableflow.editing.where import Where
from stableflow.editing.wishes import Wishes
from stableflow.flow.integrate import Callback, walk
from stableflow.flow.schedule import ALWAYS, Schedule
from stableflow.flow.solvers import Solver, make_solver
from stableflow.flow.time_grid import TimeGrid
from stableflow.images import PictureLike
from stableflow.models.base import Conditioning, FlowModel, Intervention
from stableflow.region import Region
from stableflow.registry import Registry
from stableflow.types import Images, Latents
from stableflow.vital.presets import default_nudge_scale

Method = TypeVar("Method", bound="Editor")
SHARED = ("strength", "negative", "guidance_scale", "kv_memory", "preset")
"""Settings that go from one editor to another where a task asks for the other, if both have them."""


@dataclass(frozen=True)
class Editor(Settable, ABC):
    """An editing method over a model. Each method below is a frozen dataclass whose fields are its settings.

    Args:
        model: From `load` or `wrap`.
        strength: The one dial that every editor understands: 0 is the source itself, 1 the freest edit. None leaves
            the method at its own settings; what a method makes of it stands at its class.
        negative: What classifier-free guidance leads away from; the family's own negative prompt if None.
    """

    name: ClassVar[str]
    paper: ClassVar[str] = ""
    good_for: ClassVar[str] = ""

    model: FlowModel
    strength: float | None = field(default=None, kw_only=True)
    negative: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        check_editor(self)

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
        """Draw a source picture from noise, keeping what its edits will need; one seed, one picture, in every editor.

        Args:
            prompt: What to draw, or its conditioning (one row).
            seed: Of the noise (drawn on the CPU, so the same on every device); a random one when None.
            latents: The noise itself, (1, channels, latent_height, latent_width), instead of a seed.
            num_steps: Solver steps.
            guidance_scale: The model's usual scale when None.
            height, width: In pixels; the model's own size when None.
            solver: A name in `SOLVERS`, or a solver.
            callback: Told of every finished step; what it raises ends the run at once and leaves nothing attached.

        Raises:
            InputError: A setting is out of range.
        """
        size = checked_size(self.model, height, width)
        check_callback(callback)
        how = Sampling(check_steps("num_steps", num_steps), make_solver(solver), guidance_scale)
        check_noise(self.model, seed, latents, size)
        conditioning = source_prompt(self.model, prompt, negative=self.negative)
        with torch.no_grad():
            return draw(
                self.model, conditioning, how, self.recording(),
                seed=seed, latents=latents, size=size, callback=callback,
            )  # fmt: skip

    def invert(
        self,
        image: PictureLike,
        prompt: str | Conditioning,
        *,
        solver: str | Solver | None = None,
        num_steps: int | None = None,
        nudge_scale: float | None = None,
        inversion: str | None = None,
        guidance_scale: float | None = 1.0,
        height: int | None = None,
        width: int | None = None,
        callback: Callback | None = None,
    ) -> Source:
        """Take a real picture as a source, and find its noise and path where this method starts from them.

        Args:
            image: A file, a PIL image, or a tensor (3, height, width) in [0, 1].
            prompt: What the picture shows, or its conditioning.
            solver: "fixed_point" is the paper's and the presets'; aligned replay needs it, inversion="paper" takes any.
            num_steps: Solver steps; the preset's when None: 50 of the exact one.
            nudge_scale: Of the latents, undone after editing; the checkpoint's when None, or the paper's 1.15.
            inversion: "aligned" replays the source exactly on its recorded path. "paper" runs the solver back from
                the noise and puts the source back on its path after every step; it costs a second pass. A method that
                needs no path finds one only if any of these four is given.
            guidance_scale: Of the source's own passes.
            height, width: Size to work at, in pixels; by default the picture's own, reduced to fit the model's
                usual size. The picture is padded to the model's multiple and cropped back.
            callback: Told of every finished inversion step.

        Raises:
            ImageError: The picture cannot be read.
            InputError: A setting is out of range, or the solver does not go with aligned replay.
        """
        given = (solver, num_steps, nudge_scale, inversion)
        check_callback(callback)
        how = self.inverting(solver, num_steps, nudge_scale, inversion, guidance_scale)
        conditioning = source_prompt(self.model, prompt, negative=self.negative)
        with torch.no_grad():
            encoded = encode(self.model, conditioning, image, height=height, width=width)
            if not self.needs_path and all(setting is None for setting in given):
                return encoded
            return find_path(self.model, encoded, how, self.recording(), callback)

    def inverting(
        self,
        solver: str | Solver | None = None,
        num_steps: int | None = None,
        nudge_scale: float | None = None,
        inversion: str | None = None,
        guidance_scale: float | None = 1.0,
    ) -> Sampling:
        """Return how pictures are inverted: what is given, and the speed preset for the rest."""
        speed = self.speed()
        chosen = make_solver(speed.solver if solver is None else solver)
        way = speed.inversion if inversion is None else inversion
        check_inversion(way, chosen)
        steps = speed.num_steps if num_steps is None else check_steps("num_steps", num_steps)
        scale = default_nudge_scale(self.model) if nudge_scale is None else check_nudge(nudge_scale)
        return Sampling(steps, chosen, guidance_scale, way, scale)

    def edit(
        self,
        source: Source,
        prompts: Wishes,
        *,
        region: Where | None = None,
        task: str | Task | None = None,
        together: bool = False,
        exact: bool | None = None,
        callback: Callback | None = None,
        **settings: Any,
    ) -> EditResult:
        """Draw the edits of a source, all in one batch; the same call gives the same pictures.

        Args:
            source: From `generate`, `invert` or `Source.load`, of any editor over the same checkpoint.
            prompts: One or more edited prompts, `Edit`s with a region or guidance of their own, or a conditioning.
            region: Where the edits may act: a `Region`, or "mask:FILE", "box:x,y,w,h", "word:dog" and so on
                (`REGIONS`). Outside, latents follow the source's path.
            task: What is wanted ("remove": `TASKS`), which chooses editor, settings and, without a region, where.
            together: The edits make one picture, each in its own region, later ones on top; prompts share every step.
            exact: Outside the region the result has the given picture's own pixels, to the last bit; so by default,
                unless the task says otherwise.
            callback: Told of every finished step; what it raises ends the run at once and leaves nothing attached.
            settings: Any of this editor's own, for this call.

        Raises:
            FingerprintError: The source belongs to another checkpoint or dtype.
            InputError: A setting is out of range, or the region does not fit.
            NumericsError: A step produced NaN or infinity.
        """
        wanted = as_task(task)
        editor = self.having(**settings) if wanted is None else self.doing(wanted, settings)
        exact = check_flag("exact", (wanted is None or wanted.exact) if exact is None else exact)
        check_callback(callback)
        with torch.no_grad():
            run = Run(editor, source, prompts, region=region, together=together, task=wanted)
            if editor.strength == 0:
                return run.unchanged(exact=exact)
            run.source = editor.prepared(run)
            with run.attached(editor.interventions(run)):
                latents = walk(run.step, editor.start(run), run.grid, callback=callback)
            return run.result(editor.finish(run, latents), exact=exact)

    def doing(self, task: Task, settings: Mapping[str, Any]) -> "Editor":
        """Return the editor of a task: its settings, and over them those of the call; what all share is taken along.

        Raises:
            InputError, UnknownNameError: A setting contradicts the task, or the task's editor has no such one.
        """
        task.check(settings)
        kind, chosen = EDITORS[task.editor], {**task.settings, **settings}
        if isinstance(self, kind):
            return self.having(**chosen)
        shared = {name: getattr(self, name) for name in SHARED if name in self.setting_names()}
        return kind(self.model, **{n: v for n, v in shared.items() if n in kind.setting_names()}).having(**chosen)

    # What a method may say of itself; all but `step` have defaults.
    needs_path: ClassVar[bool] = False
    """Whether edits start from the source's own noise, so that pictures are inverted."""

    needs_negative: ClassVar[bool] = False
    """Whether it is for models with classifier-free guidance alone."""

    looks_for: ClassVar[str | None] = None
    """The region that is looked for where a call brings none: a kind in `REGIONS`."""

    def acting(self, run: Run, region: Region | None) -> Region | None:
        """Return where edits act, at the source's pixels, from the region that was asked for."""
        return region

    @abstractmethod
    def step(self, run: Run, z: Latents, t0: float, t1: float) -> Latents:
        """Return the edits at t1 from those at t0: the paper's rule."""

    def times(self, run: Run) -> TimeGrid:
        """Return the times that edits visit; the model's own at the method's num_steps."""
        return run.whole_grid(getattr(self, "num_steps"))  # noqa: B009

    def start(self, run: Run) -> Latents:
        """Return the edits at the first time, a row each; the source's own picture or noise by default."""
        return run.rows(run.clean)

    def finish(self, run: Run, z: Float[Tensor, "rows channels latent_height latent_width"]) -> Latents:
        """Return the edits' image latents from their last state."""
        return z

    def held(self, run: Run, t: float) -> Latents:
        """Return where the source is at t, in the coordinates that the method moves in."""
        return run.source.path.at(t)

    def pinned(self, run: Run) -> Schedule:
        """Return how far what lies outside a region is put back there after a step."""
        return ALWAYS

    def prepared(self, run: Run) -> Source:
        """Return the source with all that `start` and `step` ask of it."""
        return run.source

    def interventions(self, run: Run) -> Sequence[Intervention]:
        """Return what acts on the model's layers meanwhile."""
        return ()

    def shown(self, run: Run, images: Images) -> tuple[Images, Region]:
        """Return what is shown of decoded edits of a region, and how far; outside it the given picture is."""
        return run.put_back(images)

    def notes(self, run: Run) -> dict[str, Any]:
        """Return what else recipes should say."""
        return {}

    def recording(self) -> Recording:
        """Return which keys and values sources are to keep."""
        return Recording()

    def speed(self) -> SpeedPreset:
        """Return how pictures are inverted where it is not said."""
        return make_preset("exact")


EDITORS: Registry[type[Editor]] = Registry("editor", group="stableflow.editors")
"""From public names to editors: `EDITORS["sdedit"](model, strength=0.6)`. Other packages add theirs by entry points."""


def editor(name: str, *, paper: str = "", good_for: str = "") -> Callable[[type[Method]], type[Method]]:
    """Return a decorator that registers an editor.

    Args:
        name: Its public name.
        paper: Where it is from.
        good_for: What a user should take it for, in a few words.
    """

    def register(method: type[Method]) -> type[Method]:
        method.name, method.paper, method.good_for = name, paper, good_for
        return EDITORS.register(name)(method)

    return register
