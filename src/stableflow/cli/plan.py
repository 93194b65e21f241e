"""What a run would do and what it costs, said beforehand."""

from typing import Any

from stableflow.cli.settings import EditSettings
from stableflow.editing.memory import choose_keep, needed_bytes
from stableflow.editing.methods.stable_flow import StableFlow
from stableflow.editing.sampling import sampler_of
from stableflow.flow.integrate import count_evaluations
from stableflow.flow.solvers import make_solver
from stableflow.images import prepare


def edit_plan(editor: StableFlow, settings: EditSettings) -> dict[str, Any]:
    """Return size, steps, model evaluations, rows and memory of an edit run, without running the model."""
    model, real = editor.model, settings.image is not None
    if settings.image is not None:
        picture = prepare(
            settings.image,
            multiple=model.pixel_multiple,
            max_side=max(model.default_size),
            height=settings.height,
            width=settings.width,
        )
        height, width = picture.pixels.shape[-2:]
    else:
        default_height, default_width = model.default_size
        height, width = settings.height or default_height, settings.width or default_width
    speed = editor.preset
    steps = settings.steps if settings.steps is not None else (speed.num_steps if real else 15)
    grid = model.time_grid(steps, height, width)
    solver = make_solver(settings.solver or (speed.solver if real else "euler"))
    twice = real and (settings.inversion or speed.inversion) == "paper"
    sampler = sampler_of(solver) if twice else solver
    passes, evaluations = count_evaluations(sampler, grid), count_evaluations(solver, grid)
    edit_passes = passes if twice or not real else grid.num_steps  # aligned replay: one a step
    kv_bytes = needed_bytes(
        model, height, width, layers=len(editor.layers), passes=edit_passes, precision=speed.kv_precision
    )
    keep = choose_keep(editor.keep, kv_bytes, model.device)
    return {
        "model": model.name,
        "size": f"{width}x{height}",
        "layers": list(editor.layers),
        "preset": speed.name,
        "steps": steps,
        "source evaluations": evaluations + (passes if twice and keep != "share" else 0),
        "edit rows": len(settings.to) + (keep == "share"),
        "edit evaluations": edit_passes,
        "keys and values": "shared in the batch" if keep == "share" else f"{kv_bytes / 1e6:.1f} MB on {keep}",
        "files": len(settings.to) + 3,
    }
