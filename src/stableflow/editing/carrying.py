"""A source whose things are elsewhere: what of it edits read, cell by cell, and what is left to be drawn."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from stableflow.editing.collage import FADE, Collage, paste, read_cells, vacated
from stableflow.editing.fingerprint import ENCODED, Fingerprint, digest
from stableflow.editing.making import Recording, Sampling, find_path
from stableflow.editing.moves import Move
from stableflow.editing.path import Path
from stableflow.editing.run import Run
from stableflow.editing.source import Source
from stableflow.editing.where import found
from stableflow.errors import InputError
from stableflow.flow.inversion import AlignedReplay, nudge
from stableflow.flow.solvers import Solver, make_solver
from stableflow.flow.trajectory import Trajectory
from stableflow.models.base import FlowModel
from stableflow.region import Region
from stableflow.types import Images, Latents


@dataclass(frozen=True, eq=False)
class Carrying:
    """What is where after the moves of one run.

    Args:
        asked: The moves, with regions as they were found.
        collage: The picture with the things pasted.
        hole: Whole tokens that were left and that nothing touches; nothing is held there.
        free: The same in latent pixels, 1 inside: all others follow the source. Those of a token whose other half still
            shows something tell the model what surrounds the hole (docs/log.md).
        tokens, cells: Which token is read by each token, and which latent pixel by each; None where the collage itself
            is the source.
    """

    asked: tuple[Move, ...]
    collage: Collage
    hole: Region
    free: Float[Tensor, "1 1 y x"]
    tokens: Int[Tensor, " tokens"] | None = None
    cells: Int[Tensor, " cells"] | None = None

    @property
    def way(self) -> str:
        """How the source is carried."""
        return "collage" if self.tokens is None else "carry"

    @staticmethod
    def of(run: Run, asked: Sequence[Move], *, share: float, way: str) -> "Carrying":
        """Find the things of a run in its source, and where they go.

        Args:
            share: Of every move, in [0, 1].
            way: "carry", "collage" or "auto".

        Raises:
            InputError: There is no move, or keys and values cannot be carried so.
        """
        if not asked:
            raise InputError("Nothing is moved: give at least one Move, such as Move('word:dog', dx=16).")
        things = [found(run, move.region).grow(move.grow) for move in asked]
        for move, thing in zip(asked, things):
            if thing.bounds() is None:
                raise InputError(f"Nothing lies in the region {move.region!r} of this picture; look at its overlay.")
        size = things[0].size
        named = tuple(replace(move, region=thing, grow=0) for move, thing in zip(asked, things))
        moves, model, made = [move.part(share) for move in named], run.model, run.source.fingerprint
        things = [thing for thing, move in zip(things, moves) if not move.is_still]
        moves = [move for move in moves if not move.is_still]
        collage = paste(given(run.source), things, moves)
        side = model.pixel_multiple
        grid, latent_grid = (made.height // side, made.width // side), (run.clean.shape[-2], run.clean.shape[-1])
        cell = made.height // latent_grid[0]
        hole = _as_region(vacated(things, moves, grid, side), side, size)
        free = vacated(things, moves, latent_grid, cell)[None, None].to(model.device)
        why_not = _cannot_carry(model, moves)
        if way == "carry" and why_not:
            raise InputError(f"Keys and values cannot be carried: {why_not}. Use way='collage' or 'auto'.")
        if way == "collage" or why_not:
            return Carrying(named, collage, hole, free)
        tokens, cells = read_cells(things, moves, grid, side), read_cells(things, moves, latent_grid, cell)
        return Carrying(named, collage, hole, free, tokens.to(model.device), cells.to(model.device))

    def drawn(self, run: Run) -> Float[Tensor, "edits 1 y x"]:
        """Return 1 at latents that are drawn anew, by a hole or by the region of an edit, and 0 elsewhere."""
        own = run.rows(self.free)
        return own if run.asked is None else torch.maximum(own, run.free)

    def latents(self, z: Float[Tensor, "rows channels y x"]) -> Float[Tensor, "rows channels y x"]:
        """Return latents with every pixel read where its content comes from."""
        return z if self.cells is None else z.flatten(2)[..., self.cells].unflatten(2, z.shape[2:])

    def source(self, run: Run, how: Sampling, recording: Recording) -> Source:
        """Return the inverted collage, made once for a source and kept with it.

        Args:
            how: Inverts it, where the source itself was not inverted.
        """
        own, made = run.source, run.source.fingerprint
        if made.inversion not in (None, ENCODED):
            solver = make_solver(made.solver)
            how = Sampling(made.num_steps, solver, made.guidance_scale, made.inversion, made.nudge_scale)
        pixels = self.collage.pixels
        moved: Source = own.keep(
            ("collage", how, recording, digest(pixels)), lambda: _inverted(run.model, own, pixels, how, recording)
        )
        run.nfe["source"] += moved.nfe
        return moved.to(run.model.device)

    def filling(self, run: Run) -> Latents:
        """Return latents that show in the hole what is around it, as strong as the path that they join."""
        made = run.source.fingerprint
        if self.cells is None:
            return run.source.path.at(0.0)
        pixels = _padded(self.collage.pixels, made)
        return nudge(run.model.encode_image(pixels.to(run.model.device)), made.nudge_scale)

    def solver(self, solver: Solver, kept: Float[Tensor, "edits 1 y x"], *, shared: bool) -> Solver:
        """Return the solver with aligned replay's offsets carried as well.

        Args:
            kept: 0 where noise is new, which has no offset.
            shared: Row 0 is the source itself, where it was.
        """
        if not isinstance(solver, AlignedReplay):
            return solver
        carried = {t: kept * self.latents(offset) for t, offset in solver.offsets.items()}
        if shared:
            return AlignedReplay({t: torch.cat([solver.offsets[t], offset]) for t, offset in carried.items()})
        return AlignedReplay(carried)

    def shown(self, source: Source, drawn: Images, also: Region | None, *, pasted: bool) -> tuple[Images, Region]:
        """Return the pictures as they are shown, and where they may differ from the given one.

        Args:
            source: What was edited.
            drawn: What the model made, a row each.
            also: Where else its pixels are shown.
            pasted: Things are pasted pixels, not drawn ones.
        """
        collage = self.collage if pasted else self.collage.drawn_on(given(source))
        changed, images = collage.changed, collage.with_holes_of(drawn)
        if also is None:
            return images, changed
        seam = also.feather(FADE) if also.is_hard else also
        if len(drawn) == 1:
            seam = Region(seam.amount.amax(0, keepdim=True))  # of edits that are one picture
        amount = seam.amount[:, None].to(images)
        return torch.lerp(images, drawn, amount), changed | Region((seam.amount > 0).float())


def given(source: Source) -> Images:
    """Return the picture that a source is of: as it was given, or as it was drawn."""
    return source.images if source.given is None else source.given


def _as_region(cells: Float[Tensor, "rows columns"], side: int, size: tuple[int, int]) -> Region:
    return Region(cells.repeat_interleave(side, 0).repeat_interleave(side, 1)[None]).cropped(size)


def _inverted(model: FlowModel, own: Source, pixels: Images, how: Sampling, recording: Recording) -> Source:
    trajectory = Trajectory()
    trajectory.put(0.0, model.encode_image(_padded(pixels, own.fingerprint)))
    made = replace(own.fingerprint, image=digest(pixels), inversion=ENCODED, nudge_scale=1.0)
    return find_path(
        model, replace(own, fingerprint=made, path=Path(trajectory), given=pixels, nfe=0, kept={}), how, recording
    )


def _padded(pixels: Images, made: Fingerprint) -> Float[Tensor, "1 3 padded_height padded_width"]:
    height, width = pixels.shape[-2:]
    return F.pad(pixels, (0, made.width - width, 0, made.height - height), mode="replicate")


def _cannot_carry(model: FlowModel, moves: Sequence[Move]) -> str:
    """Return why keys and values cannot be gathered from other tokens; empty where they can."""
    if not all(layer.rotary for layer in model.layers):
        return f"the positions of {model.name} are within its keys, not turned into them in attention (RoPE)"
    for move in moves:
        if move.shift is None:
            return "a thing is resized, turned or bent"
        if any(side % model.pixel_multiple for side in move.shift):
            return f"a shift of {move.shift} pixels is no multiple of a token's {model.pixel_multiple}"
    return ""
