"""The counts behind docs/scale.md: against the real class at FLUX.1-dev's shape, real runs, and the page itself."""

from pathlib import Path

import pytest
import torch
from app_tools import BLUE, DOG, PICTURE
from torch.utils.flop_counter import FlopCounterMode

import stableflow as sf
from stableflow.benchmarks.perf.accelerator import flop_a_row
from stableflow.benchmarks.perf.random_flux import SHAPES, empty_transformer
from stableflow.serving.scale import table, vitality_hours, vitality_rows, work_of

PAGE = Path(__file__).parents[2] / "docs" / "scale.md"


def test_operations_of_a_row_are_those_of_the_real_class_on_the_meta_device():
    shape = SHAPES["flux"]
    transformer = empty_transformer(shape).to("meta")
    made = {"device": "meta", "dtype": torch.float32}
    tokens = 4096
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        transformer(
            hidden_states=torch.empty(1, tokens, 64, **made), timestep=torch.empty(1, **made),
            encoder_hidden_states=torch.empty(1, 512, shape.text_dim, **made), guidance=torch.empty(1, **made),
            pooled_projections=torch.empty(1, shape.pooled_dim, **made), img_ids=torch.empty(tokens, 3, **made),
            txt_ids=torch.empty(512, 3, **made),
        )  # fmt: skip
    assert flop_a_row(shape, 1024) == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_rows_of_a_real_picture_are_what_a_run_counts(tiny):
    editor = sf.StableFlow(tiny, preset="fast")
    source = editor.invert(PICTURE, prompt=DOG)
    result = editor.edit(source, BLUE)
    assert (source.nfe, result.recipe["nfe"]["edit"]) == (work_of("fast").source, work_of("fast").edit) == (24, 8)


def test_the_page_shows_what_the_command_prints():
    assert table(400.0).strip() in PAGE.read_text(encoding="utf-8")


def test_machines_share_a_measurement_and_none_waits_long():
    assert vitality_rows(12) == 12_480  # docs/concepts/vitality.md: the bundled model, exact
    alone, many = (vitality_hours(60, machines, 1e12, 1e12) for machines in (1, 16))
    assert alone * 3600 == pytest.approx(vitality_rows(60)) and alone / 16 <= many < alone / 16 * 1.02
