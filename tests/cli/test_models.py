"""`stableflow models` and --memory: what is said of checkpoints that are not here."""

import json

from typer.testing import CliRunner

from stableflow.cli.main import app
from stableflow.models.known import KNOWN


def output_of(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    return json.loads(result.stdout)


def test_every_known_checkpoint_is_listed_with_its_licence_and_plans():
    listed = output_of("models", "--format", "json")
    assert set(listed) == set(KNOWN) and len(listed) >= 12
    assert listed["flux-dev"]["licence"] == "FLUX.1 [dev] Non-Commercial" and listed["flux-dev"]["gated"]
    assert listed["flux-dev"]["plans"]["16g"].startswith("13.6 GB at most (one part at a time, transformer int8")
    more = output_of("models", "--format", "json", "--edits", 4)
    assert more["flux-dev"]["plans"]["16g"] != listed["flux-dev"]["plans"]["16g"]


def test_a_run_is_planned_without_the_weights():
    given = ("edit", "-m", "flux-dev", "-p", "a cat", "-t", "a dog", "--dry-run", "--format", "json")
    assert output_of(*given)["12g"].startswith("10.1 GB at most")
    plan = output_of(*given, "--memory", "16g")
    assert plan["rows"] == 2 and plan["steps"] == "14.5 GB" and "80g" not in plan
