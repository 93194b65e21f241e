"""What a run would do and what it costs, said beforehand."""

from typing import Any

from stableflow.cli.settings import EditSettings
from stableflow.editing.memory import choose_keep
from stableflow.editing.stable_flow import StableFlow
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
    steps = settings.steps if settings.steps is not None else (50 if real else 15)
    grid = model.time_grid(steps, height, width)
    solver = make_solver(settings.solver or ("fixed_point" if real else "euler"))
    passes = grid.num_steps * solver.evals_per_step
    kv_bytes = model.kv_bytes(height, width) * len(editor.layers) * passes
    keep = choose_keep(editor.keep, kv_bytes, model.device)
    return {
        "model": model.name,
        "size": f"{width}x{height}",
        "layers": list(editor.layers),
        "steps": steps,
        "source evaluations": passes * (2 if settings.inversion == "paper" and real and keep != "share" else 1),
        "edit rows": len(settings.to) + (keep == "share"),
        "edit evaluations": passes,
        "keys and values": "shared in the batch" if keep == "share" else f"{kv_bytes / 1e6:.1f} MB on {keep}",
        "files": len(settings.to) + 3,
    }
