"""`stableflow batch`: every row as it would be made alone, what fails told, what is made not made again."""

import json
import shutil

import numpy as np
import pytest
from cli_tools import picture
from PIL import Image

from stableflow.batch import making
from stableflow.batch.rows import LOADING, make_rows, row_tasks
from stableflow.batch.table import read_table
from stableflow.cli.options import SHAPING
from stableflow.cli.settings import order_from
from stableflow.errors import InputError, LoadError, MissingExtraError, UnknownNameError
from stableflow.order import Order

DRAWN = {"prompt": "a red dog", "seed": 1, "steps": 2, "layers": "0,3"}
ROWS = [
    {"id": "plain", **DRAWN, "to": "a blue dog"},
    {"id": "half", **DRAWN, "to": ["a red cat", "a blue dog"], "strength": 0.5},
    {"id": "other", **DRAWN, "seed": 2, "to": "a blue dog"},
    {"id": "boxed", **DRAWN, "to": "a blue dog", "region": "box:2,2,6,6"},
    {"id": "sdedit", **DRAWN, "layers": None, "to": "a blue dog", "editor": "sdedit"},
    {
        "id": "photo",
        "image": "photo.png",
        "prompt": "a red dog",
        "steps": 2,
        "layers": "0,3",
        "to": "a red cat",
        "region": "box:2,2,6,6",
    },
    {"id": "broken", **DRAWN, "steps": "many", "to": "a blue dog"},
    {"id": "wordless", **DRAWN, "to": "a blue dog", "region": "word:zebra"},
]
MADE = [row["id"] for row in ROWS[:6]]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def pixels(path):
    return np.asarray(Image.open(path))


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("jobs")
    picture(folder / "photo.png")
    return write(folder / "jobs.jsonl", ROWS)


@pytest.fixture
def made_sources(monkeypatch):
    """The seeds of the sources that are made."""
    seeds, make = [], Order.make_source
    monkeypatch.setattr(Order, "make_source", lambda order, *rest: (seeds.append(order.seed), make(order, *rest))[1])
    return seeds


def test_rows_are_made_as_alone_and_those_that_fail_are_told(command, jobs, folder, tmp_path, made_sources):
    code, out, err = command("batch", jobs, "--model", folder, "--out", "o", "--format", "json")
    told = json.loads(out)
    assert code == 1 and (told["rows"], told["made"], told["failed"]) == (8, 6, 2), err
    assert "steps" in told["failures"]["broken"] and "zebra" in told["failures"]["wordless"]
    assert made_sources == [1, 2, 1, None]  # plain, half, boxed and wordless share one
    lines = [json.loads(line) for line in (tmp_path / "o" / "summary.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [row["id"] for row in ROWS]
    assert {line["id"] for line in lines if line["status"] == "made"} == set(MADE)
    for row in (ROWS[i] for i in (1, 3, 5)):
        write(tmp_path / "run.yaml", [{k: v for k, v in row.items() if k not in ("id", "image", "to")}])
        given = [part for text in np.atleast_1d(row["to"]) for part in ("--to", text)]
        given += ["--image", jobs.parent / "photo.png"] if "image" in row else []
        code, _, err = command("edit", "--model", folder, "-c", "run.yaml", *given, "--out", "alone", "--no-check")
        assert code == 0, err
        for name in lines[[line["id"] for line in lines].index(row["id"])]["files"]:
            if name.endswith(".png"):
                assert np.array_equal(pixels(tmp_path / "o" / row["id"] / name), pixels(tmp_path / "alone" / name)), (
                    name
                )
        shutil.rmtree(tmp_path / "alone")


def test_what_is_made_is_not_made_again_unless_its_order_or_file_changes(command, folder, tmp_path, made_sources):
    picture(tmp_path / "photo.png")
    rows = [ROWS[0], ROWS[2], ROWS[5]]
    run = ["batch", write(tmp_path / "jobs.jsonl", rows), "--model", folder, "--out", "o"]
    assert command(*run)[0] == 0 and made_sources == [1, 2, None]
    assert command(*run)[0] == 0 and len(made_sources) == 3
    picture(tmp_path / "photo.png", width=26)
    write(tmp_path / "jobs.jsonl", [rows[0], rows[1] | {"to": "a red cat"}, rows[2]])
    code, out, _ = command(*run)
    assert code == 0 and "1 made already, 2 made, 0 failed" in out and made_sources[3:] == [2, None]
    assert json.loads((tmp_path / "o" / "other" / "row.json").read_text())["to"] == ["a red cat"]


def test_a_batch_that_is_stopped_goes_on(command, folder, tmp_path, monkeypatch):
    run = ["batch", write(tmp_path / "jobs.jsonl", ROWS[:3]), "--model", folder, "--out", "o", "--format", "json"]
    edit, calls = Order.edit, []

    def stopped(order, *rest):
        calls.append(order)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return edit(order, *rest)

    monkeypatch.setattr(Order, "edit", stopped)
    assert command(*run)[0] == 130
    statuses = [json.loads(line)["status"] for line in (tmp_path / "o" / "summary.jsonl").read_text().splitlines()]
    assert statuses == ["made", "missing", "missing"]
    code, out, _ = command(*run)
    assert code == 0 and json.loads(out)["made already"] == 1 and json.loads(out)["made"] == 2


def test_a_fault_of_one_row_is_its_own(command, folder, tmp_path, monkeypatch):
    edit = Order.edit

    def faulty(order, *rest):
        if order.to == ["a red cat"]:
            raise ZeroDivisionError("somewhere deep")
        return edit(order, *rest)

    monkeypatch.setattr(Order, "edit", faulty)
    rows = [
        {**ROWS[0], "id": "bad", "to": "a red cat"},
        ROWS[0],
        {**ROWS[0], "id": "gone", "model": "no/such-folder/x"},
    ]
    code, out, _ = command("batch", write(tmp_path / "j.jsonl", rows), "--config",
                           write(tmp_path / "base.yaml", [{"model": str(folder)}]), "--format", "json")  # fmt: skip
    told = json.loads(out)
    assert code == 1 and told["made"] == 1 and set(told["failures"]) == {"bad", "gone"}
    assert told["failures"]["bad"] == "ZeroDivisionError: somewhere deep"


def test_dry_run_and_what_a_table_may_not_be(command, folder, tmp_path):
    jobs = write(tmp_path / "j.jsonl", ROWS[:4])
    code, out, _ = command("batch", jobs, "--dry-run", "--format", "json")
    assert code == 0 and json.loads(out)["sources"] == 2 and not (tmp_path / "out").exists()
    write(jobs, [{**ROWS[0], "promt": "x"}])
    code, _, err = command("batch", jobs)
    assert (
        code == 2 and "Unknown column of j.jsonl 'promt'" in err and "Did you mean 'prompt'" in err and "region" in err
    )
    write(jobs, [{**ROWS[0], "id": "mine"}])
    (tmp_path / "out" / "mine").mkdir(parents=True)
    (tmp_path / "out" / "mine" / "letter.txt").write_text("dear")
    code, _, err = command("batch", jobs, "--model", folder)
    assert code == 2 and "holds no result of a batch" in err and (tmp_path / "out" / "mine" / "letter.txt").exists()


def test_tables(tmp_path, monkeypatch):
    path = tmp_path / "jobs.csv"
    path.write_text(
        'prompt,seed,to,weight,negative\na dog,1,"a cat, sitting",,\na dog,2,"[""a cat"", ""a bird""]",0.5,[x]\n'
    )
    first, second = read_table(path, ["prompt", "seed", "to", "weight", "negative"])
    assert first == {"prompt": "a dog", "seed": "1", "to": ["a cat, sitting"]}
    assert second["to"] == ["a cat", "a bird"] and second["negative"] == "[x]"
    assert order_from(first).seed == 1 and order_from(second).weight == "0.5"
    path.write_text("prompt,to\na dog,a cat, sitting\n")
    with pytest.raises(LoadError, match=r"line 2: there are more cells than columns"):
        read_table(path, ["prompt", "to"])
    (tmp_path / "jobs.jsonl").write_text('{"to": "x"}\n[1]\n')
    with pytest.raises(LoadError, match=r"line 2: a row is an object"):
        read_table(tmp_path / "jobs.jsonl", ["to"])
    with pytest.raises(LoadError, match=r"give a \.csv, \.jsonl or \.parquet file"):
        read_table(tmp_path / "jobs.xls", ["to"])
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match="pip install pyarrow"):
        read_table(tmp_path / "jobs.parquet", ["to"])
    with pytest.raises(UnknownNameError, match="column"):
        read_table(path.with_suffix(".jsonl"), ["prompt"]) if (
            path.with_suffix(".jsonl").write_text('{"to": 1}')
        ) else 0


def test_ids_name_folders_and_rows_of_a_source_stay_together(tmp_path):
    for ids, words in ((["../up"], "names a folder"), (["a", "A"], "that of row 1")):
        with pytest.raises(InputError, match=words):
            make_rows([{"id": name, **DRAWN, "to": ["x"]} for name in ids], order_from, tmp_path)
    table = [{**DRAWN, "seed": seed, "model": model, "to": [str(i)]} for i, (seed, model) in
             enumerate([(1, "a"), (2, "a"), (1, "b"), (1, "a"), (2, "a"), (1, "a")])]  # fmt: skip
    rows = make_rows(table, order_from, tmp_path)
    assert [task.keys for task in row_tasks(rows, together=2)] == [("1", "4"), ("6",), ("2", "5"), ("3",)]
    assert LOADING == SHAPING or set(LOADING) == set(SHAPING)
    assert (
        make_rows([{"image": "a.png", "region": "~mask:m.png", "prompt": "x", "to": ["y"]}], order_from, tmp_path)[
            0
        ].order.region
        == f"~mask:{tmp_path / 'm.png'}"
    )
    assert making.RowMaker(lambda order: pytest.fail("loads"))((make_rows([{"to": ["x"]}], order_from, tmp_path)[0],))[
        "1"
    ].error.startswith("--prompt is missing")
