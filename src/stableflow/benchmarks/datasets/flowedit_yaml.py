"""FlowEdit's list of edits, the shape in which most flow-editing repositories keep theirs."""

from pathlib import Path

from stableflow.benchmarks.cases import Case
from stableflow.benchmarks.datasets.files import field, inside, read_yaml, text
from stableflow.errors import LoadError

CATEGORY = "edit"  # the file sorts its edits into no kinds


def load_flowedit_yaml(path: str | Path, folder: str | Path | None = None) -> list[Case]:
    """Read a YAML list of `input_img`, `source_prompt` and `target_prompts`.

    Other keys, such as `target_codes`, are not read.

    Args:
        path: The YAML file.
        folder: What `input_img` is relative to; the file's own folder when None.

    Returns:
        A case an entry with all its target prompts, in the file's order.

    Raises:
        LoadError: Names the file and the entry.

    Source: Kulikov et al., "FlowEdit", arXiv:2412.08629, edits.yaml of its release.
    """
    path = Path(path)
    folder = path.parent if folder is None else Path(folder)
    entries = read_yaml(path)
    if not isinstance(entries, list) or not entries:
        raise LoadError(f"{path} must hold a list of entries with input_img, source_prompt and target_prompts.")
    cases = []
    for number, entry in enumerate(entries, start=1):
        where = f"{path}, entry {number}"
        image = inside(folder, text(entry, "input_img", where), where)
        targets = field(entry, "target_prompts", list, where)
        if not targets:
            raise LoadError(f"{where}: 'target_prompts' is an empty list.")
        edits = tuple(text({"target_prompts": target}, "target_prompts", where) for target in targets)
        prompt = text(entry, "source_prompt", where)
        cases.append(Case(f"{number:03d}-{image.stem}", prompt, edits, CATEGORY, image=image))
    return cases
