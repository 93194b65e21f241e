"""The paper's experiment: photographs of people and animals from COCO, four kinds of edits each.

Three steps: `select` photographs in the user's own copy of COCO, `build` edited prompts into a YAML file that a person
should read and correct, `load_coco_nonrigid` it as cases.

Source: Avrahami et al., "Stable Flow" (CVPR 2025), arXiv:2411.14430, quantitative comparison. The authors' list of
photographs and prompts is not public, so figures on this one compare methods with each other, not with the paper.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import yaml

from stableflow.benchmarks.cases import Case
from stableflow.benchmarks.datasets.coco_prompts import CATEGORIES, mention, template_edits
from stableflow.benchmarks.datasets.files import field, inside, read_json, read_yaml, text
from stableflow.errors import InputError, LoadError
from stableflow.files import write_text_atomic

NAME = "coco-nonrigid"
NON_RIGID = ("person", "animal")  # COCO's supercategories of things that can change their pose
MIN_SHARE = 0.1
HEADER = """\
# Photographs of COCO and edits of them, for stableflow's benchmark. Read before use: rewrite or delete what makes no
# sense. Every edit is a whole caption of the edited picture; an entry may have fewer than all kinds of edits.
"""


@dataclass(frozen=True)
class Subject:
    """A photograph with a prominent person or animal.

    Args:
        id: COCO's number of the image.
        file: Relative to the COCO folder.
        thing: COCO's category of the largest such thing.
        share: Of the picture's area that it covers.
        caption: The first caption that names it.
    """

    id: int
    file: str
    thing: str
    share: float
    caption: str


Writer = Callable[[Subject], Mapping[str, str]]
"""Writes the edited prompt of each category for one photograph."""


def write_by_template(subject: Subject) -> dict[str, str]:
    """Write edits offline; the same photograph always gets the same."""
    return template_edits(subject.caption, subject.thing, seed=subject.id)


def select(
    folder: str | Path, *, split: str = "val2017", min_share: float = MIN_SHARE, limit: int | None = None
) -> list[Subject]:
    """Choose photographs in which a person or an animal is prominent.

    Args:
        folder: Holds `annotations/` with COCO's captions and instances of the split.
        split: Of COCO; the photographs are expected in a folder of this name.
        min_share: Share of the picture's area, in (0, 1], that the largest such thing must cover.
        limit: Of photographs; kinds of things take turns, so that people do not fill it alone.

    Raises:
        LoadError: Names the annotation file and the entry.
    """
    if not 0.0 < min_share <= 1.0:
        raise InputError(f"min_share must lie in (0, 1], got {min_share}.")
    if limit is not None and limit < 1:
        raise InputError(f"limit must be 1 or more, got {limit}.")
    folder = Path(folder)
    instances, images = _Annotations(folder, "instances", split), _Annotations(folder, "captions", split)
    names = {
        number: text(entry, "name", where)
        for number, entry, where in instances.by_id("categories")
        if text(entry, "supercategory", where) in NON_RIGID
    }
    largest = _largest_things(instances, names)
    captions = images.captions()
    chosen = []
    for number, entry, where in instances.by_id("images"):
        area = field(entry, "width", int, where) * field(entry, "height", int, where)
        if number not in largest or largest[number][0] < min_share * area:
            continue
        size, thing = largest[number]
        caption = next((words for words in captions[number] if mention(words, thing)), None)
        if caption is not None:
            file = f"{split}/{text(entry, 'file_name', where)}"
            chosen.append(Subject(number, file, thing, round(size / area, 3), caption))
    return list(_in_turn(sorted(chosen, key=lambda subject: subject.id)))[:limit]


def build(path: str | Path, subjects: Sequence[Subject], *, write: Writer = write_by_template) -> None:
    """Write edits of the photographs into a YAML file, to be read and corrected by a person.

    Photographs that the file already holds stay as they are, corrections and all, and are not written again.

    Raises:
        LoadError: The writer's endpoint failed. What was written until then is in the file; build again to go on.
    """
    entries: list[Any] = _listed(Path(path)) if Path(path).exists() else []
    done = {entry.get("id") for entry in entries if isinstance(entry, Mapping)}
    try:
        for subject in (subject for subject in subjects if subject.id not in done):
            edits = write(subject)
            entries.append(
                {
                    "id": subject.id,
                    "image": subject.file,
                    "thing": subject.thing,
                    "share": subject.share,
                    "caption": subject.caption,
                    "edits": {category: edits[category] for category in CATEGORIES if category in edits},
                }
            )
    finally:
        if entries:
            listing = {"dataset": NAME, "images": entries}
            dumped = yaml.safe_dump(listing, sort_keys=False, allow_unicode=True, width=120)
            write_text_atomic(path, HEADER + dumped)


def load_coco_nonrigid(path: str | Path, folder: str | Path) -> list[Case]:
    """Read a file that `build` wrote.

    Args:
        path: The YAML file.
        folder: The COCO folder that its images are relative to.

    Returns:
        A case a photograph and category.

    Raises:
        LoadError: Names the file and the entry.
    """
    path, folder = Path(path), Path(folder)
    cases, seen = [], set[int]()
    for position, entry in enumerate(_listed(path), start=1):
        where = f"{path}, entry {position}"
        number = field(entry, "id", int, where)
        if number in seen:
            raise LoadError(f"{where}: the id {number} was used before; each photograph may stand here once.")
        seen.add(number)
        image, caption = inside(folder, text(entry, "image", where), where), text(entry, "caption", where)
        edits = field(entry, "edits", dict, where)
        unknown = set(edits) - set(CATEGORIES)
        if unknown:
            raise LoadError(f"{where}: unknown edits {sorted(map(str, unknown))}; known: {', '.join(CATEGORIES)}.")
        cases += [
            Case(f"{number}-{category}", caption, (text(edits, category, where),), category, image=image)
            for category in CATEGORIES
            if category in edits
        ]
    return cases


def _listed(path: Path) -> list[Any]:
    content = read_yaml(path)
    if text(content, "dataset", str(path)) != NAME:
        raise LoadError(f"{path} holds the data set {content['dataset']!r}, not {NAME!r}.")
    return field(content, "images", list, str(path))


class _Annotations:
    """One of COCO's annotation files."""

    def __init__(self, folder: Path, kind: str, split: str):
        self.path = inside(folder, f"annotations/{kind}_{split}.json", f"COCO folder {folder}")
        self._content = read_json(self.path)

    def entries(self, section: str) -> Iterable[tuple[Any, str]]:
        """Yield the entries of a section, each with its place for messages."""
        for position, entry in enumerate(field(self._content, section, list, str(self.path))):
            yield entry, f"{self.path}, {section}[{position}]"

    def by_id(self, section: str) -> Iterable[tuple[int, Any, str]]:
        return ((field(entry, "id", int, where), entry, where) for entry, where in self.entries(section))

    def captions(self) -> Mapping[int, list[str]]:
        """The captions of every image, in the order in which they were given."""
        found = defaultdict[int, list[tuple[int, str]]](list)
        for number, entry, where in self.by_id("annotations"):
            words = " ".join(field(entry, "caption", str, where).split()).rstrip(" .")
            found[field(entry, "image_id", int, where)].append((number, words))
        return defaultdict(list, {image: [words for _, words in sorted(pairs)] for image, pairs in found.items()})


def _largest_things(instances: _Annotations, names: Mapping[int, str]) -> dict[int, tuple[float, str]]:
    """The area in pixels and the name of the largest single thing of every image; crowds do not count.

    COCO states the area of every instance, so no outline needs to be filled.
    """
    largest: dict[int, tuple[float, str]] = {}
    for entry, where in instances.entries("annotations"):
        category = field(entry, "category_id", int, where)
        if category not in names or entry.get("iscrowd"):
            continue
        image, area = field(entry, "image_id", int, where), field(entry, "area", float, where)
        largest[image] = max(largest.get(image, (0.0, "")), (area, names[category]))
    return largest


def _in_turn(subjects: Sequence[Subject]) -> Iterable[Subject]:
    groups = defaultdict[str, list[Subject]](list)
    for subject in subjects:
        groups[subject.thing].append(subject)
    rounds = zip_longest(*(groups[thing] for thing in sorted(groups)))
    return (subject for subject in chain.from_iterable(rounds) if subject is not None)
