"""Sessions and recipes of anybody's: each field removed, of another type, huge; each tensor missing or wrong."""

import copy
import json

import pytest
import torch
from bad_values import refused
from safetensors.torch import load_file, safe_open, save_file

import stableflow as sf
from stableflow.cli.settings import order_from
from stableflow.editing.session_files import SETTINGS_FILE, TENSORS_FILE, _digest
from stableflow.order import from_recipe

PROMPT, EDITED = "a red dog standing on the grass", "a blue cat sitting on the snow"
DEEP: list = []
for _ in range(60):
    DEEP = [DEEP]
OTHERS = [
    None,
    "x",
    "",
    -1,
    0,
    7,
    0.5,
    10**30,
    True,
    float("nan"),
    float("inf"),
    [],
    {},
    [None],
    [["a"]],
    {"a": {}},
    DEEP,
    "y" * 10**5,
]


@pytest.fixture(scope="module")
def sources(model, tmp_path_factory):
    editor = sf.StableFlow(model, layers=[0, 3], kv_memory="device")
    made = {
        "drawn": editor.generate(PROMPT, seed=1, num_steps=2),
        "real": editor.invert(torch.full((3, 16, 16), 0.5), PROMPT, num_steps=2),
    }
    folder = tmp_path_factory.mktemp("sessions")
    for name, source in made.items():
        source.save(folder / name)
    return editor, made, folder


def places(content, path=()):
    """Every field and entry of a JSON value, by its path."""
    pairs = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in pairs:
        yield (*path, key)
        yield from places(value, (*path, key))


def changed(content, path, value):
    """The content with another value in one place; without it where the value is `places` itself."""
    content = copy.deepcopy(content)
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    if value is places:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return content


def written(folder, settings, tensors):
    """A session whose two files belong together, as a stranger can make them."""
    text = json.dumps(settings)
    folder.mkdir(exist_ok=True)
    (folder / SETTINGS_FILE).write_text(text)
    save_file(tensors, folder / TENSORS_FILE, metadata={"settings": _digest(text)})
    return folder


def same_kind(value, old):
    """What may stand there as well, as far as a file can tell: another text, number or list of the same make."""
    if isinstance(old, str) or old is None:
        return isinstance(value, str) or value is None or (old is None and isinstance(value, int | float | list))
    if isinstance(old, bool):
        return isinstance(value, bool)
    if isinstance(old, int | float):
        return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1000
    return isinstance(value, type(old)) and not value


MAY_BE_NONE = ("guidance_scale", "text_length")  # of models that have none


@pytest.mark.parametrize("kind", ["drawn", "real"])
def test_settings_of_sessions(sources, tmp_path, kind):
    _, _, folder = sources
    settings = json.loads((folder / kind / SETTINGS_FILE).read_text())
    tensors, tried, bad = load_file(folder / kind / TENSORS_FILE), 0, []
    for path in places(settings):
        old = settings
        for key in path:
            old = old[key]
        for value in [places, *OTHERS]:
            if value is not places and same_kind(value, old):
                continue
            if (value is places and path[-1] in (*range(9), "iterations")) or (
                value is None and path[-1] in MAY_BE_NONE
            ):
                continue
            session = written(tmp_path / "s", changed(settings, path, value), tensors)
            fault = refused(lambda session=session: sf.Source.load(session), SETTINGS_FILE, TENSORS_FILE)
            tried += 1
            bad += [f"{path} = {str(value)[:40]}: {fault}"] if fault else []
    for extra in ((), ("fingerprint",)):
        session = written(tmp_path / "s", changed(settings, (*extra, "more"), 1), tensors)
        fault = refused(lambda session=session: sf.Source.load(session), SETTINGS_FILE)
        bad += [f"{extra}: {fault}"] if fault else []
    assert tried > 250 and not bad, f"{len(bad)} of {tried}:\n" + "\n".join(bad[:15])
    sf.Source.load(written(tmp_path / "s", settings, tensors))  # the test's own way of writing is sound


def tensors_made_wrong(name, tensor):
    yield "missing", None
    yield "another size", torch.ones(*tensor.shape[:-1], tensor.shape[-1] + 1) if tensor.ndim else None
    yield "no size", torch.tensor(1.0)
    yield "empty", torch.ones(0)
    yield "NaN", torch.full_like(tensor.float(), float("nan"))
    yield "one dimension more", tensor.float()[None].clone()
    yield "two rows", torch.cat([tensor, tensor]).clone() if tensor.ndim else None


@pytest.mark.parametrize("kind", ["drawn", "real"])
def test_tensors_of_sessions(sources, tmp_path, kind):
    """Refused when it is read, or at the latest when it is edited; never another picture in silence."""
    editor, _, folder = sources
    settings = json.loads((folder / kind / SETTINGS_FILE).read_text())
    tensors, tried, bad = load_file(folder / kind / TENSORS_FILE), 0, []
    for name, tensor in tensors.items():
        for what, wrong in tensors_made_wrong(name, tensor):
            if (name, what) in ALLOWED or (what == "one dimension more" and name.startswith("conditioning/")):
                continue  # the same numbers: the same picture
            others = {key: value for key, value in tensors.items() if key != name}
            if wrong is not None:
                others[name] = wrong
            session = written(tmp_path / "s", settings, others)
            fault = refused(lambda session=session: editor.edit(sf.Source.load(session), EDITED), "", name)
            tried += 1
            bad += [f"{name} {what}: {fault}"] if fault else []
    assert tried > 50 and not bad, f"{len(bad)} of {tried}:\n" + "\n".join(bad[:15])


ALLOWED = {("given", "missing")}


@pytest.mark.parametrize(
    "name", ["kv/x", "kv/1/2", "kv/a/b/c/d", "trajectory/x", "offset/nan", "trajectory/", "kv_scale/1"]
)
def test_names_of_tensors(sources, tmp_path, name):
    _, _, folder = sources
    settings = json.loads((folder / "drawn" / SETTINGS_FILE).read_text())
    tensors = load_file(folder / "drawn" / TENSORS_FILE) | {name: torch.ones(1, 2)}
    assert refused(lambda: sf.Source.load(written(tmp_path / "s", settings, tensors)), TENSORS_FILE) is None


@pytest.mark.parametrize("kind", ["drawn", "real"])
def test_recipes(sources, kind):
    """Every field in turn: an order that is checked, or one error; what is left is checked against the fingerprint."""
    editor, made, _ = sources
    recipe = json.loads(json.dumps(editor.edit(made[kind], EDITED).recipe))
    image = {"image": "picture.png"} if kind == "real" else {}
    tried, bad = 0, []
    for path in places(recipe):
        if path[0] not in ("source", "editor", "edits", "region", "exact"):
            continue
        for value in [places, *OTHERS]:
            if value is places and isinstance(path[-1], int):
                continue
            other = changed(recipe, path, value)
            fault = refused(lambda other=other: order_from(from_recipe(other), image), "")
            tried += 1
            if fault and "accepted" not in fault:
                bad.append(f"{path} = {str(value)[:40]}: {fault}")
    for whole in OTHERS:
        fault = refused(lambda whole=whole: order_from(from_recipe(whole), image), "")
        bad += [f"{str(whole)[:40]}: {fault}"] if fault else []
    assert tried > 250 and not bad, f"{len(bad)} of {tried}:\n" + "\n".join(bad[:15])
    order_from(from_recipe(recipe), image)


def test_files_that_are_no_sessions(sources, tmp_path):
    _, _, folder = sources
    for name in (SETTINGS_FILE, TENSORS_FILE):
        for content in (b"", b"{", b"\xff\xfe", b"[" * 10**5, b"x" * 100, b"\x80\x04cos\nsystem\n."):
            session = written(tmp_path / "s", json.loads((folder / "drawn" / SETTINGS_FILE).read_text()), {})
            (session / name).write_bytes(content)
            assert refused(lambda session=session: sf.Source.load(session), name) is None
    with safe_open(folder / "drawn" / TENSORS_FILE, framework="pt") as file:
        assert len(file.metadata()["settings"]) == 64
