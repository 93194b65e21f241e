"""What is to be moved, and how: values that Python, the command line and recipes share."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stableflow.checks import LONGEST_SIDE, check_count, check_flag, check_number, check_pair, check_points
from stableflow.editing.warp import Origin, Point, similarity, smooth_warp
from stableflow.editing.where import check_kind, describe
from stableflow.errors import InputError
from stableflow.reading import short
from stableflow.region import Region

LARGEST_SCALE = 100.0


@dataclass(frozen=True)
class Move:
    """One thing and where it goes: p -> pivot + (dx, dy) + scale R(turn) (p - pivot), or a smooth warp by points.

    Args:
        region: The thing: a `Region`, or its description ("word:dog", "box:x,y,w,h", "mask:FILE" and so on).
        dx, dy: Pixels to the right and down.
        scale: Of its size.
        turn: Degrees, clockwise as seen.
        copy: The thing stays where it was as well.
        drag: Pairs of pixels ((x, y), (x, y)), from and to, instead of the four above: one pair is a shift, two also
            turn and resize, and more bend the thing, as little as they can.
        pivot: What scale and turn leave where it is; None is the middle of the thing's lower edge, so that what
            stands stays standing.
        grow: Pixels around the region that go along: the regions of words are whole tokens, and miss edges.

    Raises:
        InputError: A number is out of range, or both a drag and a shift are given.
    """

    region: Region | str
    dx: float = 0.0
    dy: float = 0.0
    scale: float = 1.0
    turn: float = 0.0
    copy: bool = False
    drag: Sequence[Sequence[Sequence[float]]] = ()
    pivot: Sequence[float] | None = None
    grow: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.region, Region):
            if not isinstance(self.region, str):
                raise InputError(f"region of a Move must be a Region or its description, got {short(self.region)}.")
            check_kind(self.region)
        for name in ("dx", "dy"):
            object.__setattr__(self, name, check_number(name, getattr(self, name), -LONGEST_SIDE, LONGEST_SIDE))
        object.__setattr__(self, "scale", check_number("scale", self.scale, 0, LARGEST_SCALE, above=True))
        object.__setattr__(self, "turn", check_number("turn", self.turn, -360, 360))
        check_flag("copy", self.copy)
        check_count("grow", self.grow, 0, LONGEST_SIDE)
        object.__setattr__(self, "drag", _checked_drag(self.drag))
        if self.pivot is not None:
            object.__setattr__(self, "pivot", check_points("pivot", [self.pivot])[0])
        if self.drag and (self.dx, self.dy, self.scale, self.turn) != (0.0, 0.0, 1.0, 0.0):
            raise InputError("A Move takes a drag, or dx, dy, scale and turn; two more pairs of points say the same.")

    @property
    def shift(self) -> tuple[float, float] | None:
        """Pixels to the right and down, if that is all the move is."""
        if len(self.drag) == 1:
            (x0, y0), (x1, y1) = self.drag[0]
            return x1 - x0, y1 - y0
        return None if self.drag or self.scale != 1.0 or self.turn != 0.0 else (self.dx, self.dy)

    @property
    def is_still(self) -> bool:
        """Whether everything stays where it is."""
        return all(tuple(a) == tuple(b) for a, b in self.drag) if self.drag else self.shift == (0.0, 0.0)

    def part(self, share: float) -> "Move":
        """Return so much of the way: 0 leaves the thing as it is, 1 is the whole move."""
        pairs = tuple(((x0, y0), (x0 + share * (x1 - x0), y0 + share * (y1 - y0))) for (x0, y0), (x1, y1) in self.drag)
        return dataclasses.replace(
            self, dx=share * self.dx, dy=share * self.dy, scale=self.scale**share, turn=share * self.turn, drag=pairs
        )

    def origin(self, thing: Region) -> Origin:
        """Return where pixels of the result come from.

        Args:
            thing: The region as it was found.
        """
        if self.drag:
            return smooth_warp([((a[0], a[1]), (b[0], b[1])) for a, b in self.drag])
        x, y, width, height = thing.bounds() or (0, 0, 0, 0)
        pivot = (x + width / 2, float(y + height)) if self.pivot is None else (self.pivot[0], self.pivot[1])
        return similarity(pivot, (self.dx, self.dy), self.scale, self.turn)

    def as_json(self) -> dict[str, Any]:
        """Return what `make_move` reads; all that is not as usual."""
        where = describe(self.region) if isinstance(self.region, Region) else self.region
        others = {known.name: known.default for known in dataclasses.fields(self) if known.name != "region"}
        said = {name: getattr(self, name) for name, usual in others.items() if getattr(self, name) != usual}
        lists = {name: _as_lists(value) for name, value in said.items()}
        return {"region": where, **lists}


def make_move(move: Move | Mapping[str, Any]) -> Move:
    """Return the move itself, or the one that a recipe or a YAML file describes.

    Raises:
        InputError: It is neither, or has a name that no move has.
    """
    if isinstance(move, Move):
        return move
    names = [known.name for known in dataclasses.fields(Move)]
    if not isinstance(move, Mapping) or "region" not in move or not set(move) <= set(names):
        raise InputError(f"A move is a Move, or has region and some of {names[1:]}, got {short(move)}.")
    return Move(**move)


def make_moves(moves: Any) -> tuple[Move, ...]:
    """Return moves from a list of `Move`s or of what recipes hold of them.

    Raises:
        InputError: It is no list, or one is no move; says which.
    """
    if not isinstance(moves, list | tuple):
        raise InputError(f"moves must be a list of Move(...), got {short(moves)}.")
    made = []
    for i, move in enumerate(moves):
        try:
            made.append(make_move(move))
        except InputError as error:
            raise InputError(f"moves[{i}]: {error}") from error
    return tuple(made)


def _checked_drag(drag: Any) -> tuple[tuple[Point, Point], ...]:
    if not isinstance(drag, list | tuple):
        raise InputError(f"drag takes pairs of pixels ((x, y), (x, y)), from and to, got {short(drag)}.")
    pairs = [check_pair(f"drag[{i}]", pair, "of pixels, from and to") for i, pair in enumerate(drag)]
    checked = [tuple(check_points(f"drag[{i}]", list(pair))) for i, pair in enumerate(pairs)]
    for end, points in zip(("from", "to"), zip(*checked)):
        if len(set(points)) < len(points):
            raise InputError(f"Two pairs of a drag are {end} one pixel; give each point once, got {short(drag)}.")
    return tuple((pair[0], pair[1]) for pair in checked)


def _as_lists(value: Any) -> Any:
    return [_as_lists(entry) for entry in value] if isinstance(value, tuple) else value
