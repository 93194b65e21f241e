"""What stands in deploy/: every path, extra and option that it names is there. Containers are not built here."""

import ast
import inspect
import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from stableflow.cli.app import app

ROOT = Path(__file__).parents[2]
FILES = ("deploy/Dockerfile", "deploy/space/Dockerfile")
KNOWN = {"FROM", "RUN", "WORKDIR", "COPY", "USER", "VOLUME", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"}


def instructions(name):
    """The instructions of a Dockerfile, with their continued lines joined."""
    text = re.sub(r"\\\n\s*", "", (ROOT / name).read_text(encoding="utf-8"))
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [line.partition(" ")[::2] for line in lines]


def space_command():
    return json.loads(dict(instructions("deploy/space/Dockerfile"))["CMD"])


@pytest.mark.parametrize("name", FILES)
def test_a_container_file_names_what_there_is(name):
    found = instructions(name)
    assert {word for word, _ in found} <= KNOWN and found[0][0] == "FROM"
    for paths in [rest.split()[:-1] for word, rest in found if word == "COPY"]:
        for path in paths:
            assert path == "stableflow-*.whl" or (ROOT / path).exists(), path
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = re.findall(r"\[([a-z,]+)\]", " ".join(rest for word, rest in found if word == "RUN"))
    assert extras and {one for some in extras for one in some.split(",")} <= {*project["optional-dependencies"]}
    assert dict(found)["FROM"].startswith("python:") and dict(found)["USER"] not in ("root", "0")
    started = [json.loads(rest) for word, rest in found if word in ("ENTRYPOINT", "CMD")]
    assert all(command[:2] == ["stableflow", "app"] for command in started)
    options = {option for command in started for option in command if option.startswith("--")}
    assert options <= options_of_app(), options - options_of_app()
    check = dict(found).get("HEALTHCHECK", "").partition("CMD ")[2]
    assert not check or ast.parse(json.loads(check)[-1])


def options_of_app():
    found = inspect.signature(app).parameters.values()
    told = [option for one in found for option in one.annotation.__metadata__]
    return {name for option in told for name in (option.default, *option.param_decls) if isinstance(name, str)}


def test_the_space_says_what_it_is():
    head = (ROOT / "deploy/space/README.md").read_text(encoding="utf-8").split("---")[1]
    told = yaml.safe_load(head)
    assert told["sdk"] == "docker" and str(told["app_port"]) == dict(instructions("deploy/space/Dockerfile"))["EXPOSE"]
    assert len(told["short_description"]) <= 60 and {"title", "emoji", "colorFrom", "colorTo", "license"} <= {*told}
    assert told["colorFrom"] in ("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray")
    options = dict(zip(space_command(), space_command()[1:]))
    assert options["--host"] == "0.0.0.0" and "--proxy" in options and options["--out"] == "/data"
