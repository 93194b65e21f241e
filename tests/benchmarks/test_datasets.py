"""Loaders on small files made here: what they read, and that every fault names its file and entry."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import torch
import yaml
from PIL import Image

from stableflow.benchmarks.cases import Case
from stableflow.benchmarks.datasets import coco_nonrigid as coco
from stableflow.benchmarks.datasets.chat_prompts import KEY_VARIABLE, chat_writer
from stableflow.benchmarks.datasets.coco_prompts import CATEGORIES, NAMES, template_edits
from stableflow.benchmarks.datasets.flowedit_yaml import load_flowedit_yaml
from stableflow.benchmarks.datasets.pie_bench import decode_mask, load_pie_bench
from stableflow.errors import InputError, LoadError


def put_picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (32, 32), "red").save(path)


def changed(mapping, **changes):
    """A copy with values replaced, or taken out where None."""
    return {key: value for key, value in {**mapping, **changes}.items() if value is not None}


# --- cases


GOOD = {"id": "1", "prompt": "a dog", "edits": ("a cat",), "category": "replacement", "seed": 3}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"id": " "}, "needs an id and a category"),
        ({"image": "dog.png"}, "either a seed to draw its source with or an image"),
        ({"seed": None}, "either a seed"),
        ({"edits": ()}, "at least one edited prompt"),
        ({"edits": ("a cat", " ")}, "none of them empty"),
        ({"edits": ("a cat", "a bird"), "target": torch.zeros(3, 8, 8)}, "one target picture for 2"),
        ({"target": torch.zeros(3, 8, 8), "mask": torch.ones(8, 9, dtype=torch.bool)}, r"mask of \(8, 9\)"),
    ],
)
def test_a_case_is_complete_or_refused(wrong, message):
    assert Case(**GOOD).seed == 3
    with pytest.raises(InputError, match=message):
        Case(**{**GOOD, **wrong})


# --- FlowEdit's YAML


ENTRY = {"input_img": "images/bear.png", "source_prompt": "A bear.", "target_prompts": ["A dog.", "A cat."]}


def flowedit_file(folder, content):
    put_picture(folder / "images" / "bear.png")
    path = folder / "edits.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def test_flowedit_yaml(tmp_path):
    path = flowedit_file(
        tmp_path, [{**ENTRY, "target_codes": ["dog", "cat"]}, changed(ENTRY, target_prompts=["A fox"])]
    )
    first, second = load_flowedit_yaml(path)
    assert (first.id, first.prompt, first.edits) == ("001-bear", "A bear.", ("A dog.", "A cat."))
    assert first.image == tmp_path / "images" / "bear.png" and first.seed is None and second.id == "002-bear"
    moved = tmp_path / "elsewhere.yaml"
    path.rename(moved)
    assert load_flowedit_yaml(moved, tmp_path)[1].edits == ("A fox",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- [", r"edits.yaml is not valid YAML"),
        ("{}", "must hold a list of entries"),
        ("!!python/object/apply:os.getcwd []", "not valid YAML"),
        ([ENTRY, "bear"], "edits.yaml, entry 2 must be a mapping .* got 'bear'"),
        ([changed(ENTRY, source_prompt=None)], "entry 1 has no 'source_prompt'; it has 'input_img'"),
        ([changed(ENTRY, source_prompt=" ")], "entry 1: 'source_prompt' is empty"),
        ([changed(ENTRY, target_prompts=[])], "'target_prompts' is an empty list"),
        ([changed(ENTRY, target_prompts="A dog")], "'target_prompts' must be a list, got 'A dog'"),
        ([changed(ENTRY, target_prompts=[True])], r"must be text \(put it in quotes\), got True"),
        ([changed(ENTRY, input_img="images/wolf.png")], "there is no file .*wolf.png"),
        ([changed(ENTRY, input_img="../secret.png")], "leads out of the data set's folder"),
        ([changed(ENTRY, input_img="images/../../secret.png")], "leads out"),
        ([changed(ENTRY, input_img="/etc/passwd")], "leads out"),
        ([changed(ENTRY, input_img="C:\\secret.png")], "leads out"),
        ([changed(ENTRY, input_img="..\\secret.png")], "leads out"),
    ],
)
def test_bad_flowedit_yaml(tmp_path, content, message):
    put_picture(tmp_path.parent / "secret.png")
    with pytest.raises(LoadError, match=message):
        load_flowedit_yaml(flowedit_file(tmp_path, content))


def test_missing_file(tmp_path):
    with pytest.raises(LoadError, match=r"edits.yaml cannot be read: No such file"):
        load_flowedit_yaml(tmp_path / "edits.yaml")


# --- PIE-Bench


PIE = {
    "image_path": "0_random_140/000000000000.jpg",
    "original_prompt": "a slanted [mountain] bicycle on the road",
    "editing_prompt": "a slanted [rusty  mountain] bicycle on the road [ ]",
    "blended_word": "bicycle bicycle",
    "editing_instruction": "Make it rusty",
    "editing_type_id": "5",
    "mask": [513 * 10, 3, 512 * 100, 512],
}


def pie_folder(folder, entries):
    put_picture(folder / "annotation_images" / "0_random_140" / "000000000000.jpg")
    (folder / "mapping_file.json").write_text(entries if isinstance(entries, str) else json.dumps(entries))
    return folder


def test_pie_bench(tmp_path):
    (case,) = load_pie_bench(pie_folder(tmp_path, {"000000000000": PIE}))
    assert case.id == "000000000000" and case.category == "change-pose" and case.image.is_file()
    assert case.prompt == "a slanted mountain bicycle on the road"
    assert case.edits == ("a slanted rusty mountain bicycle on the road",)
    inner = case.mask[1:-1, 1:-1]
    assert int(inner.sum()) == 3 + 510 and case.mask[10, 10:13].all() and case.mask[100].all()
    assert not case.mask[10, 9] and not case.mask[10, 13]


def test_the_border_of_a_mask_is_always_set():
    empty = decode_mask([])
    assert int(empty.sum()) == 4 * 511
    assert decode_mask([0, 512 * 512]).all()


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ("{", "mapping_file.json is not valid JSON"),
        ("[]", "must hold a mapping of case ids"),
        ({"7": changed(PIE, mask=[1, 2, 3])}, "entry '7': 'mask' must be pairs"),
        ({"7": changed(PIE, mask=[1, -2])}, "'mask' must be pairs of a start and a length, whole numbers"),
        ({"7": changed(PIE, mask=[512 * 512 - 1, 2])}, "'mask' has a run of 2 from 262143, beyond the 512x512"),
        ({"7": changed(PIE, mask="0 4")}, "'mask' must be a list"),
        ({"7": changed(PIE, editing_type_id="10")}, r"'editing_type_id' must lie in 0..9, got '10'"),
        ({"7": changed(PIE, editing_prompt="[ ]")}, "nothing but brackets"),
        ({"7": changed(PIE, editing_prompt=None)}, "has no 'editing_prompt'"),
        ({"7": changed(PIE, image_path="../mapping_file.json")}, "leads out of the data set's folder"),
    ],
)
def test_bad_pie_bench(tmp_path, entries, message):
    with pytest.raises(LoadError, match=message):
        load_pie_bench(pie_folder(tmp_path, entries))


def test_pie_bench_in_the_wrong_folder(tmp_path):
    with pytest.raises(LoadError, match="there is no file .*mapping_file.json"):
        load_pie_bench(tmp_path)


# --- COCO


CATEGORY_LIST = [
    {"id": 1, "name": "person", "supercategory": "person"},
    {"id": 17, "name": "cat", "supercategory": "animal"},
    {"id": 18, "name": "dog", "supercategory": "animal"},
    {"id": 3, "name": "car", "supercategory": "vehicle"},
]
IMAGES = [{"id": i, "file_name": f"{i:012d}.jpg", "width": 100, "height": 100} for i in range(1, 8)]
THINGS = [  # image, category, area, crowd
    (1, 18, 3000.0, 0), (1, 17, 500, 0),
    (2, 3, 9000, 0), (2, 18, 900, 0),  # a large car, a small dog
    (3, 1, 2000, 0), (4, 1, 2500, 0), (4, 18, 1500, 0),
    (5, 1, 9000, 1),  # a crowd
    (6, 17, 4000, 0), (7, 18, 5000, 0),
]  # fmt: skip
CAPTIONS = {
    1: ["Grass and sky.", "A dog standing  on the grass. "],
    2: ["A dog by a car"],
    3: ["A woman riding a wave"],
    4: ["An old man sitting down on a bench with a dog."],
    5: ["People in a square"],
    6: ["A cat lying on a bed"],
    7: ["Two dogs in the snow"],  # none in the singular
}


@pytest.fixture
def coco_folder(tmp_path):
    annotations = tmp_path / "annotations"
    annotations.mkdir()
    things = [
        {"id": n, "image_id": i, "category_id": c, "area": a, "iscrowd": crowd}
        for n, (i, c, a, crowd) in enumerate(THINGS)
    ]
    captions = [
        {"id": 10 * image + n, "image_id": image, "caption": words}
        for image, several in CAPTIONS.items()
        for n, words in enumerate(several)
    ]
    instances = {"images": IMAGES, "categories": CATEGORY_LIST, "annotations": things}
    (annotations / "instances_val2017.json").write_text(json.dumps(instances))
    (annotations / "captions_val2017.json").write_text(json.dumps({"images": IMAGES, "annotations": captions[::-1]}))
    for image in IMAGES:
        put_picture(tmp_path / "val2017" / image["file_name"])
    return tmp_path


def test_coco_photographs_are_those_with_a_prominent_person_or_animal(coco_folder):
    chosen = coco.select(coco_folder)
    assert [(s.id, s.thing, s.share) for s in chosen] == [
        (6, "cat", 0.4), (1, "dog", 0.3), (3, "person", 0.2), (4, "person", 0.25)]  # fmt: skip
    assert chosen[1].caption == "A dog standing on the grass" and chosen[1].file == "val2017/000000000001.jpg"
    assert [s.id for s in coco.select(coco_folder, limit=3)] == [6, 1, 3]
    assert [s.id for s in coco.select(coco_folder, min_share=0.28)] == [6, 1]


def test_coco_yaml_is_written_read_corrected_and_continued(coco_folder, tmp_path):
    path, subjects = tmp_path / "edits.yaml", coco.select(coco_folder)
    coco.build(path, subjects[:2])
    text = path.read_text()
    assert text.startswith("# Photographs of COCO") and "A dog standing on the grass" in text
    content = yaml.safe_load(text)
    content["images"][0]["edits"] = {"scene": "A cat lying on the moon"}
    path.write_text(yaml.safe_dump(content))
    coco.build(path, subjects)
    cases = coco.load_coco_nonrigid(path, coco_folder)
    assert len(cases) == 1 + 3 * 4 and len({case.id for case in cases}) == len(cases)
    assert cases[0].id == "6-scene" and cases[0].edits == ("A cat lying on the moon",)
    assert [case.category for case in cases[1:5]] == list(CATEGORIES)
    assert cases[1].prompt == "A dog standing on the grass" and cases[1].image.is_file()


def test_templates_change_what_their_category_says(coco_folder):
    for subject in coco.select(coco_folder):
        edits = coco.write_by_template(subject)
        assert edits == coco.write_by_template(subject) and list(edits) == list(CATEGORIES)
        assert len({subject.caption, *edits.values()}) == 5
    dog = template_edits("A dog standing on the grass", "dog", seed=0)
    assert "standing" not in dog["non-rigid"] and dog["non-rigid"].endswith("on the grass")
    assert dog["addition"].startswith("A dog wearing") and dog["addition"].endswith("standing on the grass")
    assert "dog" not in dog["replacement"] and dog["replacement"].endswith("standing on the grass")
    assert dog["scene"].startswith("A dog standing ") and "grass" not in dog["scene"]
    old = template_edits("An old man sitting down on a bench", "person", seed=1)
    assert old["replacement"].startswith("An old ") and "sitting down" not in old["non-rigid"]
    elephant = template_edits("An elephant near a man's elephant", "elephant", seed=1)["replacement"]
    assert elephant.startswith("A ") and "elephant" not in elephant and "man's" in elephant
    assert all(template_edits(f"a {name}", thing, seed=2) for thing, names in NAMES.items() for name in names)


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("instances", lambda c: c.pop("categories"), r"instances_val2017.json has no 'categories'"),
        ("instances", lambda c: c["annotations"][3].pop("area"), r"annotations\[3\] has no 'area'"),
        ("instances", lambda c: c["images"][0].update(width="wide"), r"images\[0\]: 'width' must be a whole number"),
        ("captions", lambda c: c["annotations"][2].update(caption=5), r"captions_val2017.json, annotations\[2\]"),
    ],
)
def test_damaged_annotations(coco_folder, kind, change, message):
    path = coco_folder / "annotations" / f"{kind}_val2017.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(LoadError, match=message):
        coco.select(coco_folder)


def test_bad_coco_settings_and_files(coco_folder, tmp_path):
    with pytest.raises(InputError, match="min_share"):
        coco.select(coco_folder, min_share=0)
    with pytest.raises(InputError, match="limit"):
        coco.select(coco_folder, limit=0)
    with pytest.raises(LoadError, match="there is no file .*instances_train2017.json"):
        coco.select(coco_folder, split="train2017")
    path = tmp_path / "edits.yaml"
    coco.build(path, coco.select(coco_folder))
    good = yaml.safe_load(path.read_text())

    def load(**changes):
        path.write_text(yaml.safe_dump({**good, "images": [good["images"][0], {**good["images"][1], **changes}]}))
        return coco.load_coco_nonrigid(path, coco_folder)

    with pytest.raises(LoadError, match=r"edits.yaml, entry 2: the id 6 was used before"):
        load(id=6)
    with pytest.raises(LoadError, match="entry 2: unknown edits .'style'.; known: non-rigid, addition"):
        load(edits={"style": "A painting"})
    with pytest.raises(LoadError, match="leads out"):
        load(image="../edits.yaml")
    path.write_text("dataset: other\nimages: []\n")
    with pytest.raises(LoadError, match="holds the data set 'other', not 'coco-nonrigid'"):
        coco.load_coco_nonrigid(path, coco_folder)


# --- the endpoint


class Endpoint(BaseHTTPRequestHandler):
    """Answers with the server's queued (status, body) pairs and keeps what it was asked."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, self.headers.get("Authorization"), body))
        status, answer = self.server.answers.pop(0)
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/elsewhere")
        self.end_headers()
        self.wfile.write(answer.encode())

    def log_message(self, *arguments):
        pass


EDITS = {category: f"A dog, {category}" for category in CATEGORIES}


def answer(content):
    return 200, json.dumps({"choices": [{"message": {"content": content}}]})


@pytest.fixture
def endpoint(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    server = HTTPServer(("127.0.0.1", 0), Endpoint)
    server.asked, server.answers = [], []
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    server.url = f"http://127.0.0.1:{server.server_port}/v1/"
    yield server
    server.shutdown()
    server.server_close()


SUBJECT = coco.Subject(1, "val2017/000000000001.jpg", "dog", 0.3, "A dog")


def test_an_endpoint_writes_the_edits(endpoint, monkeypatch, tmp_path, coco_folder):
    endpoint.answers = [(503, "later"), answer(f"```json\n{json.dumps(EDITS)}\n```")]
    assert chat_writer(endpoint.url, "some-model", pause=0.01)(SUBJECT) == EDITS
    monkeypatch.setenv(KEY_VARIABLE, "secret")
    endpoint.answers = [answer(json.dumps(EDITS)), (401, "no")]
    path = tmp_path / "edits.yaml"
    with pytest.raises(LoadError, match=r"chat/completions, image 1: the endpoint answered 401"):
        coco.build(path, coco.select(coco_folder), write=chat_writer(endpoint.url, "some-model", pause=0.01))
    assert [case.edits[0] for case in coco.load_coco_nonrigid(path, coco_folder)] == list(EDITS.values())
    assert "secret" not in path.read_text()
    paths, keys, bodies = zip(*endpoint.asked)
    assert set(paths) == {"/v1/chat/completions"} and keys == (None, None, "Bearer secret", "Bearer secret")
    assert bodies[0]["model"] == "some-model" and json.loads(bodies[0]["messages"][1]["content"])["caption"] == "A dog"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([answer("I cannot do that")], "not a JSON object with non-rigid, addition, replacement, scene"),
        ([(200, "<html>")], "image 1: the answer is not a JSON object"),
        ([answer(json.dumps(changed(EDITS, scene=None)))], "not a JSON object"),
        ([answer(json.dumps({**EDITS, "scene": "A dog"}))], "leaves the caption as it is for scene"),
        ([(302, "")], "the endpoint answered 302"),
        ([(429, "")] * 3, "the endpoint answered 429"),
    ],
)
def test_bad_answers(endpoint, given, message):
    endpoint.answers = given
    with pytest.raises(LoadError, match=message):
        chat_writer(endpoint.url, "m", retries=2, pause=0.01)(SUBJECT)
    assert not endpoint.answers


def test_bad_endpoints(endpoint, monkeypatch):
    endpoint.server_close()
    with pytest.raises(LoadError, match="did not answer"):
        chat_writer(endpoint.url, "m", retries=1, pause=0.01, timeout=2)(SUBJECT)
    for url, message in (
        ("file:///etc/passwd", "http or https address"),
        ("https://name:key@host/v1", "belongs in the environment"),
    ):
        with pytest.raises(InputError, match=message):
            chat_writer(url, "m")
    monkeypatch.setenv(KEY_VARIABLE, "secret")
    with pytest.raises(InputError, match="not encrypted"):
        chat_writer("http://example.org/v1", "m")
