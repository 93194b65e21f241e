"""What a run would do and what it costs, said beforehand."""

from dataclasses import replace
from typing import Any

from stableflow.editing import Editor
from stableflow.editing.holding import Holding
from stableflow.editing.memory import choose_memory, needed_bytes
from stableflow.editing.path import sampler_of
from stableflow.errors import InputError
from stableflow.flow.integrate import count_evaluations
from stableflow.flow.solvers import make_solver
from stableflow.images import prepare
from stableflow.models.known import Known
from stableflow.models.memory_plan import BUDGETS, USABLE, MemoryPlan, choose_plan, kv_bytes, kv_plan, weighed
from stableflow.order import DRAWN_STEPS, Order

CARDS = ("80g", "24g", "16g", "12g", "8g")
KNOWN_SIDE = 1024  # pixels
VITAL = {"black-forest-labs/FLUX.1-dev": 9}  # layers, where they are known
MAIN_MEMORY = 32 * 10**9  # bytes that plans without a machine suppose to be free for keys and values


def edit_plan(editor: Editor, order: Order) -> dict[str, Any]:
    """Return size, steps, model evaluations, rows and memory of an edit run, without running the model."""
    model = editor.model
    if order.image is not None:
        picture = prepare(
            order.image,
            multiple=model.pixel_multiple,
            max_side=max(model.default_size),
            height=order.height,
            width=order.width,
        )
        height, width = picture.pixels.shape[-2:]
    else:
        default_height, default_width = model.default_size
        height, width = order.height or default_height, order.width or default_width
    plan = {"model": model.name, "editor": editor.name, "size": f"{width}x{height}", "files": len(order.to) + 3}
    return plan | (_on_path(editor, order, height, width) if editor.needs_path else {"edits": len(order.to)})


def card_plans(order: Order, memory: str | None) -> dict[str, Any]:
    """Return how a checkpoint that need not be here would fit one card, or each of `CARDS`.

    Raises:
        InputError: It does not fit the card that was asked for.
    """
    known, rows = weighed(order.model), len(order.to) + 1
    height, width = order.height or KNOWN_SIDE, order.width or KNOWN_SIDE
    facts = {"model": known.repository, "licence": known.licence, "size": f"{width}x{height}", "rows": rows}
    if memory is not None:
        return facts | _one_card(order, known, memory, rows=rows, height=height, width=width)
    return facts | {card: fit(known, card, rows=rows, height=height, width=width) or "does not fit" for card in CARDS}


def _one_card(order: Order, known: Known, memory: str, *, rows: int, height: int, width: int) -> dict[str, Any]:
    """The plan for one card, stage by stage, with a source's keys and values."""
    plan = choose_plan(known, memory, rows=rows, height=height, width=width)
    steps = order.steps or known.steps
    layers = len(order.layers) if isinstance(order.layers, list) else VITAL.get(known.repository, 0)
    size = kv_bytes(known, layers=layers or 1, steps=steps, height=height, width=width)
    if not layers:
        one = size / steps / 1e6
        held = {
            "keys and values": f"{one:.1f} MB a layer and step, of {steps} steps; its vital layers are not measured"
        }
    else:
        room = int(USABLE * BUDGETS[memory]) - plan.peak
        place = order.keep if order.keep in ("device", "cpu", "disk") else None
        kept = kv_plan(size, steps, room, main_memory=MAIN_MEMORY, place=place)
        plan = replace(plan, stages={**plan.stages, "steps": plan.stages["steps"] + kept.on_card})
        held = {"keys and values": f"{kept.in_words}; {layers} layers, {steps} steps"}
    stages = {name: f"{n / 1e9:.1f} GB" for name, n in plan.stages.items()}
    return {memory: in_words(plan), **stages, **held}


def fit(known: Known, card: str, *, height: int, width: int, rows: int) -> str | None:
    """Return the plan for a card in words; None if there is none."""
    try:
        return in_words(choose_plan(known, card, height=height, width=width, rows=rows))
    except InputError:
        return None


def in_words(plan: MemoryPlan) -> str:
    """Return a plan as a line."""
    return f"{plan.peak / 1e9:.1f} GB at most ({plan.layout})"


def _on_path(editor: Editor, order: Order, height: int, width: int) -> dict[str, Any]:
    """What an editor runs that starts from the source's noise."""
    model, real = editor.model, order.image is not None
    speed, recording = editor.speed(), editor.recording()
    steps = order.steps if order.steps is not None else (speed.num_steps if real else DRAWN_STEPS)
    grid = model.time_grid(steps, height, width)
    solver = make_solver(order.solver or (speed.solver if real else "euler"))
    twice = real and (order.inversion or speed.inversion) == "paper"
    sampler = sampler_of(solver) if twice else solver
    passes, evaluations = count_evaluations(sampler, grid), count_evaluations(solver, grid)
    edit_passes = passes if twice or not real else grid.num_steps  # aligned replay: one a step
    if order.region is not None and isinstance(editor, Holding):
        recording = replace(recording, layers=editor.layers_within())
    kv_bytes = needed_bytes(
        model, height, width, layers=len(recording.layers), passes=edit_passes, precision=recording.precision
    )
    memory = choose_memory(recording.memory, kv_bytes, model.device)
    return {
        "layers": list(recording.layers),
        "preset": speed.name,
        "steps": steps,
        "source evaluations": evaluations + (passes if twice and memory != "share" else 0),
        "edit rows": len(order.to) + (memory == "share"),
        "edit evaluations": edit_passes,
        "keys and values": "shared in the batch" if memory == "share" else f"{kv_bytes / 1e6:.1f} MB on {memory}",
    }
