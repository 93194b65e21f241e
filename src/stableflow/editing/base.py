"""What an editor is: where its edits start and how they step. The loop around that is the same for all."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from stableflow.checks import check_flag, check_steps
from stableflow.editing.again import drawn_again
from stableflow.editing.checked import check_callback, check_editor, checked_size
from stableflow.editing.least import AUTO, least_change
from stableflow.editing.making import Recording, Sampling, check_noise, draw, encode, find_path
from stableflow.editing.path import check_inversion, check_nudge
from stableflow.editing.presets import SpeedPreset, make_preset
from stableflow.editing.prompts import source_prompt
from stableflow.editing.references import References
from stableflow.editing.result import EditResult
from stableflow.editing.run import Run
from stableflow.editing.settable import Settable
from stableflow.editing.source import Source
from stableflow.editing.tasks.base import Task, as_task, taken_along
from stableflow.editing.where import Where, all_but
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


@dataclass(frozen=True)
class Editor(Settable, ABC):
    """An editing method over a model: a frozen dataclass whose fields are its settings.

    Args:
        model: From `load` or `wrap`.
        strength: The one dial of every editor: 0 is the source, 1 the freest edit; None the method's own settings.
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
        reference: References | None = None,
        callback: Callback | None = None,
    ) -> Source:
        """Draw a source picture from noise, keeping what its edits will need; one seed, one picture, in every editor.

        Args:
            prompt: What to draw, or its conditioning (one row).
            seed: Of the noise (the same on every device); a random one when None.
            latents: The noise itself, (1, channels, latent_height, latent_width), instead of a seed.
            num_steps, solver: Solver steps, and a name in `SOLVERS`, or a solver.
            guidance_scale, height, width: The model's usual scale and size in pixels when None.
            reference: Pictures that its passes and its edits' read, of a model that was trained with them (Kontext).
            callback: Told of every finished step; what it raises ends the run at once.

        Raises InputError where a setting is out of range.
        """
        size = checked_size(self.model, height, width)
        check_callback(callback)
        how = Sampling(check_steps("num_steps", num_steps), make_solver(solver), guidance_scale)
        check_noise(self.model, seed, latents, size)
        conditioning = source_prompt(self.model, prompt, negative=self.negative, reference=reference)
        with torch.no_grad():
            drawn = {"seed": seed, "latents": latents, "size": size, "callback": callback}
            return draw(self.model, conditioning, how, self.recording(), **drawn)

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
            solver: "fixed_point" is the paper's step, and the presets'; inversion="paper" takes any.
            num_steps: Solver steps; the preset's when None.
            nudge_scale: The latents are multiplied by it before inversion and divided by it after editing; what the
                checkpoint's preset says when None, else the paper's 1.15.
            inversion: "aligned" replays the source exactly on its path. "paper" runs the solver back from the noise and
                puts the source back after every step, a second pass. A method that needs no path finds one only if
                any of these four is given.
            guidance_scale, height, width: Of the source's own passes; in pixels, the picture's own by default.

        Raises ImageError or InputError where the picture cannot be read, or a setting is out of range.
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
        """Return how pictures are inverted: as given, else by the speed preset."""
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
        keep: Sequence[str] | None = None,
        task: str | Task | None = None,
        together: bool = False,
        exact: bool | None = None,
        reference: References | None = None,
        callback: Callback | None = None,
        **settings: Any,
    ) -> EditResult:
        """Draw the edits of a source, all in one batch; the same call gives the same pictures.

        Args:
            source: Of any editor over the same checkpoint.
            prompts: One or more edited prompts, `Edit`s with a region or guidance of their own, or a conditioning.
            region: Where they may act: a `Region`, or "mask:FILE", "word:dog" and so on (`REGIONS`).
            keep: Words of the source's prompt whose places must stay, instead of a region.
            task: What is wanted ("remove": `TASKS`), which chooses the editor, its settings and the region to look for.
            together: The edits make one picture, each in its own region (`Edit(prompt, region=...)`), the last on top.
            exact: Outside the region the given picture's own pixels, to the last bit; so unless a task says otherwise.
            reference: Pictures that the edits read, of a model that was trained with them; the source's own when None.
            callback: Told of every finished step; what it raises ends the run at once and leaves nothing attached.
            settings: This editor's own; strength="auto" finds the least that makes each edit.

        Raises:
            FingerprintError, InputError: The source is of another checkpoint; a setting is out of range.
            NumericsError: A step gave NaN or infinity.
        """
        wanted, auto, region = as_task(task), settings.get("strength") == AUTO, all_but(keep, region)
        settings = {n: value for n, value in settings.items() if not auto or n != "strength"}
        editor = self.having(**settings) if wanted is None else self.doing(wanted, settings)
        exact = check_flag("exact", (wanted is None or wanted.exact) if exact is None else exact)
        check_callback(callback)
        how = dict(region=region, task=wanted, together=together, exact=exact, reference=reference, callback=callback)
        if auto:
            return least_change(editor, source, prompts, how)
        with torch.no_grad():
            run = Run(editor, source, prompts, region=region, together=together, task=wanted, reference=reference)
            if editor.strength == 0:
                return run.unchanged(exact=exact)
            run.source = editor.prepared(run)
            with run.attached(editor.interventions(run)):
                latents = walk(run.step, editor.start(run), run.grid, callback=callback)
            result = run.result(editor.finish(run, latents), exact=exact)
        return drawn_again(self, source, prompts, run, result, {**settings, **how})

    def doing(self, task: Task, settings: Mapping[str, Any]) -> "Editor":
        """Return the editor of a task: its settings, and over them those of the call; what all share is taken along.

        Raises InputError or UnknownNameError where a setting contradicts the task, or its editor has no such one.
        """
        task.check(settings)
        kind, chosen = EDITORS[task.editor], {**task.settings, **settings}
        if isinstance(self, kind):
            return self.having(**chosen)
        return kind(self.model, **taken_along(self, kind)).having(**chosen)

    needs_path: ClassVar[bool] = False
    """Whether edits start from the source's own noise, so that pictures are inverted."""
    needs_negative: ClassVar[bool] = False
    """Whether it is for models with classifier-free guidance alone."""
    strength_each: ClassVar[bool] = False
    """Whether the edits of a call may differ in strength."""
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
        """Return the edits at the first time, a row each: where the source is then, by default."""
        return run.rows(self.held(run, run.grid.times[0]))

    def finish(self, run: Run, z: Float[Tensor, "rows channels latent_height latent_width"]) -> Latents:
        """Return the edits' image latents from their last state."""
        return z

    def held(self, run: Run, t: float) -> Latents:
        """Return where the source is at t, in the coordinates that the method moves in."""
        return run.source.path.at(t)

    def pinned(self, run: Run) -> Schedule:
        """Return how far a region's outside is put back after a step."""
        return ALWAYS

    def finely(self, run: Run) -> bool:
        """Return whether a region frees latents by latent pixels, not by whole tokens."""
        return False

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
        """Return what else recipes say."""
        return {}

    def recording(self) -> Recording:
        """Return which keys and values sources keep."""
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
