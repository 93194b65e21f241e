"""Files of anybody's: whatever they hold, they are read, or refused by one short error that names the file, at once."""

import json
import random
import time

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from stableflow.errors import LoadError
from stableflow.reading import confined, parse_json, parse_yaml, read_json, read_yaml, short, validated

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3),
)
OPENING = {"json": ("[", '{"a":', '[{"a":['), "yaml": ("[", "{a: ", "- ", "? ")}


class Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    name: str
    count: int


def refused(call) -> str:
    started = time.monotonic()
    with pytest.raises(LoadError) as caught:
        call()
    assert time.monotonic() - started < 5
    assert len(str(caught.value)) < 1000
    return str(caught.value)


@given(PLAIN)
def test_what_is_sound_is_read_as_by_the_libraries(value):
    assert parse_json(json.dumps(value), where="x") == value
    assert parse_yaml(yaml.safe_dump(value), where="x") == value


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_bytes_of_any_kind_are_read_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("any") / "strange.file"
    path.write_bytes(data)
    for read in (read_json, read_yaml):
        try:
            read(path)
        except LoadError as error:
            assert "strange.file" in str(error) and len(str(error)) < 1000


@pytest.mark.parametrize("opening", OPENING["json"])
@pytest.mark.parametrize("depth", [100, 10_000, 300_000])
def test_deep_json_is_refused(tmp_path, opening, depth):
    (tmp_path / "deep.json").write_text(opening * depth)
    assert "deep.json" in refused(lambda: read_json(tmp_path / "deep.json"))


@pytest.mark.parametrize("opening", OPENING["yaml"])
@pytest.mark.parametrize("depth", [100, 2_000, 50_000])
def test_deep_yaml_is_refused(tmp_path, opening, depth):
    (tmp_path / "deep.yaml").write_text(opening * depth)
    assert "deep.yaml" in refused(lambda: read_yaml(tmp_path / "deep.yaml"))


@pytest.mark.parametrize("levels", [7, 12, 40])
@pytest.mark.parametrize("wide", [9, 30])
@pytest.mark.parametrize("shape", ["lists", "mappings", "merges"])
def test_yaml_bombs_are_refused(tmp_path, levels, wide, shape):
    lines = ["k0: &k0 {a: 1, b: 2}"]
    for level in range(1, levels):
        inner = [f"*k{level - 1}"] * wide
        text = {
            "lists": f"[{', '.join(inner)}]",
            "mappings": "{" + ", ".join(f"m{i}: {name}" for i, name in enumerate(inner)) + "}",
            "merges": f"{{<<: [{', '.join(inner)}]}}",
        }[shape]
        lines.append(f"k{level}: &k{level} {text}")
    (tmp_path / "bomb.yaml").write_text("\n".join(lines))
    assert "bomb.yaml" in refused(lambda: read_yaml(tmp_path / "bomb.yaml"))


def test_aliases_that_do_not_multiply_are_read():
    assert parse_yaml("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: [*a]", where="x")["b"] == {"x": 1, "y": 2}


@pytest.mark.parametrize(
    "text",
    ["a: &a [*a]", '"\\ud800"', "a: " + "9" * 5000, "!!python/object/apply:os.system [ls]", "1\n---\n2",
     "a: 2020-13-45", "{[1, 2]: 3}", "a: \0", "&a a: *b", "%YAML 9.9\n---\na", "a:\t- b\n- c: [}"],
)  # fmt: skip
def test_odd_yaml_is_refused(text):
    assert refused(lambda: parse_yaml(text, where="odd.yaml")).startswith("odd.yaml")


@pytest.mark.parametrize(
    "text", ["", "{", '{"a": 1,}', "9" * 5000, '"\\ud800"', '["\\ude00\\ud83d"]', '"' + '\\"' * 10**6]
)
def test_odd_json_is_refused(text):
    assert refused(lambda: parse_json(text, where="odd.json")).startswith("odd.json")


def test_brackets_and_escapes_in_text_are_no_nesting():
    value = {"a": "[" * 1000 + '"' * 5 + "\\" * 7 + "{" * 1000, "b": "\U0001f600"}
    assert parse_json(json.dumps(value), where="x") == value


def test_files_that_are_none_are_refused(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe.json")
    for path in (tmp_path / "missing.json", tmp_path, tmp_path / "pipe.json", "/dev/zero"):
        assert str(path) in refused(lambda path=path: read_json(path))


def test_large_files_are_refused_before_they_are_parsed(tmp_path):
    (tmp_path / "large.json").write_bytes(b"[" + b"0," * 10**6 + b"0]")
    assert "large.json" in refused(lambda: read_json(tmp_path / "large.json", most_bytes=10**6))


@pytest.mark.parametrize(
    "data",
    [None, 7, [], "x", {}, {"name": 1, "count": 1}, {"name": "a", "count": "1"}, {"name": "a", "count": 1, "b": 2}],
)
def test_records_of_another_shape_name_file_and_field(data):
    message = refused(lambda: validated(Entry, data, where="cell.json"))
    assert message.startswith("cell.json: ")
    assert validated(Entry, {"name": "a", "count": 1}, where="x").count == 1


@pytest.mark.parametrize(
    "name", ["", "../a", "a/../../b", "/etc/passwd", "C:\\a", "\\a", "a\\..\\..\\b", "a\0b", "link", "hop/a"]
)
def test_names_that_leave_the_folder_are_refused(tmp_path, name):
    folder = tmp_path / "data"
    folder.mkdir()
    (tmp_path / "secret").write_text("x")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "hop").symlink_to(tmp_path)
    assert "record 1" in refused(lambda: confined(folder, name, "record 1"))
    assert confined(folder, "a/b.png", "x") == folder / "a" / "b.png"


def test_values_are_shown_in_a_line_however_large():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    for value in (deep, "x" * 10**7, list(range(10**6)), {i: "y" * 1000 for i in range(1000)}, random.randbytes(10**6)):
        assert len(short(value)) <= 80
