"""Moving and resizing: the figure elsewhere, or of another size, and nothing else changed."""

import dataclasses
from collections.abc import Callable
from typing import Any

from stableflow.benchmarks.cases import Case
from stableflow.benchmarks.scene_edits import FIRST_SEED
from stableflow.benchmarks.settings import Setting
from stableflow.benchmarks.tasks.moved import Moved, MoveJudge
from stableflow.benchmarks.tasks.rows import ROWS, Cases, Row
from stableflow.benchmarks.tasks.scenes import FIRST, without
from stableflow.benchmarks.tasks.ways import source_of
from stableflow.editing.moves import Move
from stableflow.models.base import FlowModel
from stableflow.region import Region
from stableflow.scenes import Scene, caption, changed_region, render, sample_split

SIZE = 64
FEET = 0.93
SHIFTS = {"1 token": (8.0, 0.0), "2 tokens": (16.0, 0.0), "3 tokens": (24.0, 0.0), "between": (11.5, -3.0)}
SCALES = (0.75, 0.875, 1.125, 1.25)
DRAWN_SHIFTS = {"1 token": (8.0, 0.0), "between": (6.5, -3.0)}
FIGURES = ("there", "kept", "ghost", "iou", "psnr_target", "psnr_outside")
GOALS = {"there": 0.97, "kept": 0.95, "ghost": -0.02, "psnr_target": 30.0, "psnr_outside": 35.0}


def scene_of(i: int, first: int) -> Scene:
    """Return a held-out scene whose figure stands alone, looking to where there is room."""
    scene = without(sample_split(FIRST_SEED + first + i, held=True), "companion", "sign")
    return dataclasses.replace(scene, side=scene.facing, scale=0.0)


def shifted(scene: Scene, i: int) -> tuple[str, Moved, dict[str, Any]]:
    """Move the figure ahead by one of `SHIFTS`, in turn."""
    name = list(SHIFTS)[i % len(SHIFTS)]
    right, down = SHIFTS[name]
    ahead = 1 if scene.facing == "right" else -1
    x = 0.5 - ahead * (0.19 if name == "3 tokens" else 0.08)
    place, goal = (x, FEET, 1.0), (x + ahead * right / SIZE, FEET + down / SIZE, 1.0)
    return name, Moved(scene, place, goal), {"dx": ahead * right, "dy": down}


def resized(scene: Scene, i: int) -> tuple[str, Moved, dict[str, Any]]:
    """Resize the figure about its feet to one of `SCALES`, in turn."""
    scale, x = SCALES[i % len(SCALES)], 0.42 if scene.side == "left" else 0.58
    pivot = (x * SIZE, FEET * SIZE)
    return f"x {scale:g}", Moved(scene, (x, FEET, 1.0), (x, FEET, scale)), {"scale": scale, "pivot": pivot}


def drawn_shift(scene: Scene, i: int) -> tuple[str, Moved, dict[str, Any]]:
    """Move what the model drew, to the right and to the left in turn; nobody knows beforehand where it is."""
    name = list(DRAWN_SHIFTS)[i % len(DRAWN_SHIFTS)]
    right, down = DRAWN_SHIFTS[name]
    right *= (-1) ** (i // len(DRAWN_SHIFTS))
    return name, Moved(scene, None, None, by=(right, down)), {"dx": right, "dy": down}


def drawn_size(scene: Scene, i: int) -> tuple[str, Moved, dict[str, Any]]:
    """Resize what the model drew."""
    scale = SCALES[i % len(SCALES)]
    return f"x {scale:g}", Moved(scene, None, None), {"scale": scale}


Changes = tuple[Callable[[Scene, int], tuple[str, Moved, dict[str, Any]]], ...]


def _cases(changes: Changes) -> Callable[..., Cases]:
    """Return what makes cases of renders by the first change, and of drawn pictures by the second."""

    def cases(count: int, real: bool, *, first: int = FIRST) -> Cases:
        """Return the cases and their judge."""
        made, found = [], {}
        for i in range(count):
            scene = scene_of(i, first)
            category, moved, how = changes[0 if real else 1](scene, i)
            name = f"{i:04d}"
            found[name] = moved
            made.append(_case(name, category, moved, how, seed=None if real else FIRST_SEED + first + i))
        return Cases(made, [MoveJudge(found)])

    return cases


def _case(name: str, category: str, moved: Moved, how: dict[str, Any], *, seed: int | None) -> Case:
    """Return a case whose call has the move by the exact thing, by its word, and as PixelMan takes it."""
    prompt = caption(moved.scene)
    by_word = [Move(f"shape:{moved.scene.subject}", **how).as_json()]
    if seed is not None:
        return Case(name, prompt, (prompt,), category, seed=seed, call={"by_word": by_word})
    thing = Region(moved.thing[None].float())
    call = {"by_thing": [Move(thing, **how).as_json()], "by_word": by_word, "region": thing}
    call["by"] = [round(how.get("dx", 0)), round(how.get("dy", 0))]
    return Case(
        name, prompt, (prompt,), category, image=render(moved.before, SIZE),
        mask=changed_region(moved.before, moved.after, SIZE), target=render(moved.after, SIZE), call=call,
    )  # fmt: skip


def ways(model: FlowModel, real: bool) -> list[Setting]:
    """Return ours by the exact thing (over renders) and by its word, without its parts, and the rivals."""
    source, exact = source_of(real), "moves=by_thing" if real else "moves=by_word"
    word = Setting("move, outline of the word", "move", {"preset": "fast"}, source, asks=("moves=by_word",))
    loose = {"way": "collage", "begin": 0.4, "pasted": False}
    everywhere = {"region": f"box:0,0,{SIZE},{SIZE}", "exact": False}

    def own(name: str, **edit: Any) -> Setting:
        return Setting(name, "move", {"preset": "fast"}, source, edit, asks=(exact,))

    return [
        own("move"),
        *([word, own("move, hole from noise", begin=1.0)] if real else []),
        own("move, nothing pasted", pasted=False),
        Setting("collage + SDEdit 0.4", "move", {"preset": "fast"}, source, loose, call=everywhere, asks=(exact,)),
        Setting("re-prompting", source=source, edit={"layers": []}),
    ]


def move_ways(model: FlowModel, real: bool) -> list[Setting]:
    """Return `ways`, and over renders the inverted collage and PixelMan, which moves by whole pixels."""
    source = source_of(real)
    collage = Setting(
        "move, by the collage", "move", {"preset": "fast"}, source, {"way": "collage"}, asks=("moves=by_thing",)
    )
    pixelman = Setting("PixelMan", "pixelman", {"num_steps": 16}, source, asks=("region", "by"))
    return [*ways(model, real), *([collage, pixelman] if real else [])]


ROWS.register("move")(Row(_cases((shifted, drawn_shift)), move_ways, FIGURES, GOALS))
ROWS.register("resize")(Row(_cases((resized, drawn_size)), ways, FIGURES, GOALS))
