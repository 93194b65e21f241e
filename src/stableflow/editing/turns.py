"""Many turns over one source: each refers to the source's own keys, values and path, never to a decoded result."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from stableflow.checks import check_count, check_path
from stableflow.editing.base import Editor
from stableflow.editing.following import followed
from stableflow.editing.least import AUTO
from stableflow.editing.result import EditResult
from stableflow.editing.source import Source
from stableflow.editing.where import Asked, Where, read_amounts, region_of
from stableflow.editing.wording import reworded
from stableflow.errors import InputError
from stableflow.flow.integrate import Callback
from stableflow.reading import short
from stableflow.region import Region


@dataclass(frozen=True, eq=False)
class Turn:
    """One edit of a session.

    Args:
        number: From 1, in the order they were made; 0 is the source.
        before: The turn it goes on from.
        base: The turn whose path it was drawn on; 0 is the source's.
        prompt: All words so far.
        region: Where this turn and those before it, back to its base, may act; everywhere when None.
        editor: What drew it, every setting as it was used; None where a loaded session cannot tell.
        result: One picture.
    """

    number: int
    before: int
    base: int
    prompt: str
    region: Region | None
    editor: Editor | None
    result: EditResult


class Session:
    """A source and the turns taken from it: a tree, of which one turn is the current one.

    Every turn draws all words so far anew on the path of turn 0, with turn 0's keys and values. So what a turn changes
    unasked is not added up, and nothing is inverted or encoded again.

    Args:
        editor: Draws the turns; any editor.
        source: From `generate`, `invert` or `Source.load`.

    Example:
        >>> editor = StableFlow(load("tiny"))
        >>> session = Session(editor, editor.generate("a red dog standing on the grass at noon", seed=1))
        >>> session.edit({"standing": "sitting"}).images.shape
        torch.Size([1, 3, 64, 64])
        >>> session.edit({"grass": "beach"}).prompts
        ('a red dog sitting on the beach at noon',)
        >>> session.undo()
        >>> session.prompt
        'a red dog sitting on the grass at noon'
    """

    def __init__(self, editor: Editor, source: Source):
        if not isinstance(editor, Editor) or not isinstance(source, Source):
            raise InputError(f"A session takes an editor and a source, got {short(editor)} and {short(source)}.")
        self.editor = editor
        self._turns: dict[int, Turn] = {}
        self._bases: dict[int, Source | None] = {0: source}
        self.at = 0

    @property
    def source(self) -> Source:
        """Turn 0."""
        return self.base_source(0)

    @property
    def turns(self) -> tuple[Turn, ...]:
        """Every turn that was made, undone ones too."""
        return tuple(self._turns.values())

    @property
    def bases(self) -> tuple[int, ...]:
        """The turns that later ones may refer to: 0, and where `rebase` was called."""
        return tuple(self._bases)

    @property
    def current(self) -> Turn | None:
        """The turn that the next one goes on from; None at the source."""
        return self._turns.get(self.at)

    @property
    def prompt(self) -> str:
        """All words so far."""
        return self.source.fingerprint.prompt if self.current is None else self.current.prompt

    @property
    def history(self) -> tuple[Turn, ...]:
        """The turns from the source to the current one."""
        found, turn = [], self.current
        while turn is not None:
            found.append(turn)
            turn = self._turns.get(turn.before)
        return tuple(reversed(found))

    def edit(
        self,
        change: str | Mapping[str, str],
        *,
        region: Where | None = None,
        exact: bool | None = None,
        callback: Callback | None = None,
        **settings: Any,
    ) -> EditResult:
        """Take the next turn from the current one.

        Args:
            change: Words of the prompt so far and what stands in their place, or the whole prompt.
            region: Where this turn may act; what turns before it changed in regions of theirs stays free as well.
            exact, callback, settings: As `Editor.edit` takes them.

        Raises:
            InputError: The words are not in the prompt, or a region follows a turn that acted everywhere.
        """
        prompt = change if isinstance(change, str) else reworded(self.prompt, change)
        base, former = self._base(), self._former_region()
        if region is not None and former == "everywhere":
            raise InputError(
                f"Turn {self.at} acted everywhere, so holding what lies outside this region at turn {base} would undo "
                "it. Leave the region out, or call rebase() first: turns then refer to this one."
            )
        where: Any = region if not isinstance(former, Region) or region is None else _with(former, region)
        result = self.editor.edit(
            self.base_source(base), prompt, region=where, exact=exact, callback=callback, **settings
        )
        if settings.get("strength") == AUTO:
            settings["strength"] = result.recipe["editor"]["strength"]
        used = self.editor.having(**settings)
        return self.put(Turn(1 + max(self._turns, default=0), self.at, base, prompt, _asked(result), used, result))

    def put(self, turn: Turn) -> EditResult:
        """Take a turn that was made elsewhere, and make it the current one."""
        self._turns[turn.number] = turn
        self.at = turn.number
        return turn.result

    def undo(self, turns: int = 1) -> None:
        """Go back; what is undone stays in the tree, and the next edit begins a branch beside it.

        Raises:
            InputError: There are not so many turns to undo.
        """
        check_count("turns", turns, 0)
        numbers = [0, *(turn.number for turn in self.history)]
        if turns >= len(numbers):
            raise InputError(f"{len(numbers) - 1} turns lead here; {turns} cannot be undone.")
        self.at = numbers[-1 - turns]

    def go(self, number: int) -> None:
        """Make any turn the current one, of any branch; 0 is the source.

        Raises:
            InputError: There is no such turn.
        """
        if check_count("number", number, 0) and number not in self._turns:
            raise InputError(f"There is no turn {number}; there are 0 to {max(self._turns, default=0)}.")
        self.at = number

    def rebase(self) -> None:
        """Let the turns from here on refer to the current one instead of turn 0: the paper's incremental editing.

        Its path is known from drawing it, so that nothing is inverted; its keys and values are recorded on the way.
        """
        if self.current is not None:
            self._bases.setdefault(self.at, None)

    def base_source(self, number: int) -> Source:
        """Return the source that turns refer to which are based on this one."""
        found = self._bases[number]
        if found is None:
            turn = self._turns[number]
            if turn.editor is None:
                raise InputError(
                    f"Turn {number} was drawn through a mask of tokens, of which a saved session holds a digest: it "
                    "cannot be drawn again to find its path. Undo to before it."
                )
            found = self._bases[number] = followed(turn.editor, turn.result, turn.prompt, turn.region)
        return found

    def save(self, folder: str | FilePath) -> None:
        """Write the source, the tree and every turn; a turn that is there already is not written again."""
        from stableflow.editing.turn_files import save_session

        save_session(self, check_path("folder", folder))

    @staticmethod
    def load(folder: str | FilePath, editor: Editor) -> "Session":
        """Read a saved session; a folder that holds a source alone is a session without turns.

        Args:
            editor: Draws the turns to come.

        Raises:
            LoadError: A file is missing, damaged, or belongs to another session.
            FingerprintError: The session belongs to another model.
        """
        from stableflow.editing.turn_files import load_session

        return load_session(check_path("folder", folder), editor)

    def _base(self) -> int:
        """The turn that the next one refers to."""
        return self.at if self.at in self._bases or self.current is None else self.current.base

    def _former_region(self) -> Region | str | None:
        """Where the turns since the base may act: a region, "everywhere", or None where there is no turn."""
        if self.current is None or self.at in self._bases:
            return None
        return "everywhere" if self.current.region is None else self.current.region


def _with(former: Region, region: Where) -> Where:
    """A region, and what turns before it were free to change."""

    def found(run: Asked) -> Region:
        own = region_of(run, region)
        return former if own is None else own | former

    return found


def _asked(result: EditResult) -> Region | None:
    described = result.recipe["region"]
    return None if described is None else read_amounts(described.partition(":")[2])
