"""A session on disk: its source as ever, a file a turn, and the tree, which is written last."""

import hashlib
import json
from pathlib import Path as FilePath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError, safe_open
from torch import Tensor

from stableflow.editing.base import EDITORS, Editor
from stableflow.editing.passes import require_same_model
from stableflow.editing.result import EditResult
from stableflow.editing.session_files import SETTINGS_FILE, load_source, save_source, settings_text
from stableflow.editing.turns import Session, Turn
from stableflow.errors import InputError, LoadError, StableFlowError
from stableflow.files import write_tensors, write_text_atomic
from stableflow.images import save_png, to_pil
from stableflow.reading import parse_json, read_json, read_text, validated
from stableflow.region import Region

FORMAT = 1
TREE_FILE = "turns.json"


class Place(BaseModel):
    """Where a turn stands in the tree; see `Turn`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    number: int = Field(ge=1)
    before: int = Field(ge=0)
    base: int = Field(ge=0)
    prompt: str


class Tree(BaseModel):
    """What `turns.json` holds: which turns there are, and which is the current one.

    Args:
        source: A digest of the source's settings.
        at: The current turn, 0 for the source.
        bases: Turns that later ones may refer to.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    format: Literal[1] = FORMAT
    source: str
    at: int = Field(ge=0)
    bases: list[int]
    turns: list[Place] = Field(max_length=100_000)

    def faults(self) -> str:
        """Return what does not go together, in words; nothing where all does."""
        known = {0}
        for turn in self.turns:
            if turn.number in known or not {turn.before, turn.base} <= known:
                return f"turn {turn.number} is there twice, or goes on from one that is not"
            known.add(turn.number)
        missing = {self.at, *self.bases} - known
        return f"turn {min(missing)} is not there" if missing else ""


class _Turn(BaseModel):
    """What stands in a turn's file beside its tensors."""

    model_config = ConfigDict(extra="forbid", strict=True)

    source: str
    recipe: dict[str, Any]


def save_session(session: Session, folder: FilePath) -> None:
    """Write what is not there yet: source, turns, tree. Killed at any moment, the folder holds the tree before."""
    text = settings_text(session.source)
    if not (folder / SETTINGS_FILE).is_file() or (folder / SETTINGS_FILE).read_text(encoding="utf-8") != text:
        save_source(session.source, folder)
    for turn in session.turns:
        _save_turn(turn, folder, _digest(text))
    places = [Place(number=t.number, before=t.before, base=t.base, prompt=t.prompt) for t in session.turns]
    write_tree(folder, Tree(source=_digest(text), at=session.at, bases=list(session.bases), turns=places))


def load_session(folder: FilePath, editor: Editor) -> Session:
    """Read what `save_session` wrote; see `Session.load`."""
    source = load_source(folder, device=editor.model.device)
    require_same_model(editor.model, source)
    session, tree = Session(editor, source), read_tree(folder)
    for place in tree.turns:
        session.put(_load_turn(folder, place, tree.source, session))
        if place.number in tree.bases:
            session.rebase()
    session.go(tree.at)
    return session


def read_tree(folder: FilePath) -> Tree:
    """Return the tree of a session's turns, without reading its tensors; no turns where none were saved.

    Raises:
        LoadError: No session is there, or its files are damaged or of different sessions.
    """
    path, settings = folder / TREE_FILE, folder / SETTINGS_FILE
    if not settings.is_file():
        raise LoadError(
            f"{folder} holds no session: {SETTINGS_FILE} is missing. Make one with stableflow edit --session."
        )
    source = _digest(read_text(settings))
    if not path.is_file():
        return Tree(source=source, at=0, bases=[0], turns=[])
    tree = validated(Tree, read_json(path, what="a session's turns"), where=str(path))
    if tree.source != source:
        raise LoadError(f"{path} tells the turns of another source than the one in {folder}. Delete it to start anew.")
    if faults := tree.faults():
        raise LoadError(f"{path} is damaged: {faults}. Delete it to start anew.")
    return tree


def write_tree(folder: FilePath, tree: Tree) -> None:
    """Write the tree of a session's turns."""
    write_text_atomic(folder / TREE_FILE, tree.model_dump_json(indent=1) + "\n")


def _save_turn(turn: Turn, folder: FilePath, source: str) -> None:
    result = turn.result
    metadata = {"turn": _Turn(source=source, recipe=result.recipe).model_dump_json()}
    path = turn_file(folder, turn.number)
    if path.is_file() and _read(path)[1] == metadata["turn"]:
        return
    tensors = {"images": result.images, "latents": result.latents}
    for name, region in (("region", turn.region), ("shown", result.region)):
        tensors |= {} if region is None else {name: region.amount}
    text = {"stableflow": json.dumps(result.recipe, ensure_ascii=False)}
    save_png(path.with_suffix(".png"), to_pil(result.images[0], result.source.alpha), text=text)
    write_tensors(path, {name: kept.detach().cpu().contiguous() for name, kept in tensors.items()}, metadata=metadata)


def _load_turn(folder: FilePath, place: Place, source: str, session: Session) -> Turn:
    path = turn_file(folder, place.number)
    tensors, text = _read(path)
    about = validated(_Turn, parse_json(text, where=str(path)), where=str(path))
    if about.source != source:
        raise LoadError(f"{path} is a turn of another session. Delete {folder / TREE_FILE} to start anew.")
    shape = tuple(session.source.images.shape)
    try:
        images, latents = tensors["images"], tensors["latents"]
        if tuple(images.shape) != shape or not bool(images.isfinite().all()):
            raise ValueError(f"images, finite floats of shape {shape},")
        region, shown = (Region(tensors[name]) if name in tensors else None for name in ("region", "shown"))
        base = session.base_source(place.base)
        result = EditResult((place.prompt,), images, latents, base, about.recipe, shown)
    except (KeyError, ValueError, StableFlowError) as error:
        raise LoadError(f"{path} is damaged: {error} is missing or wrong. Delete it and {TREE_FILE}.") from error
    editor = _editor(session.editor, about.recipe, str(path))
    return Turn(place.number, place.before, place.base, place.prompt, region, editor, result)


def _editor(usual: Editor, recipe: dict[str, Any], where: str) -> Editor | None:
    """What drew a turn, from its recipe; None where that was a mask of tokens, of which a recipe holds a digest."""
    try:
        settings = {name: value for name, value in recipe["editor"].items() if value is not None}
        if "token_mask" in settings:
            return None
        return EDITORS[settings.pop("name")](usual.model, **settings)
    except (KeyError, AttributeError, TypeError, InputError) as error:
        raise LoadError(f"{where} does not say what drew it: {error}.") from error


def _read(path: FilePath) -> tuple[dict[str, Tensor], str]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in list(file.keys())}, (file.metadata() or {}).get("turn", "")
    except (SafetensorError, OSError) as error:
        raise LoadError(
            f"{path} is missing or damaged: {error}. Delete {path.parent / TREE_FILE} to start anew."
        ) from error


def turn_file(folder: FilePath, number: int) -> FilePath:
    """Return the file of a turn's tensors; its picture has the same name and ends in .png."""
    return folder / f"turn-{number}.safetensors"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
