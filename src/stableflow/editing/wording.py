"""A prompt with words of it changed, so that turns need only say what is new."""

import re
from collections.abc import Mapping

from stableflow.checks import check_text
from stableflow.errors import InputError
from stableflow.reading import short


def reworded(prompt: str, changes: Mapping[str, str]) -> str:
    """Return the prompt with whole words, or runs of words, replaced, one change after the other.

    Args:
        changes: From words of the prompt to what stands in their place; empty text takes them out.

    Raises:
        InputError: Words are not in the prompt, or more than once; nothing would be left.

    Example:
        >>> reworded("a red dog standing on the grass", {"red": "black", "standing": "sitting"})
        'a black dog sitting on the grass'
    """
    if not isinstance(changes, Mapping) or not changes:
        raise InputError(f"Changes of words are a mapping, as {{'red': 'black'}}, got {short(changes)}.")
    for old, new in changes.items():
        check_text("words to change", old)
        check_text("their replacement", new)
        found = re.findall(_whole(old), prompt) if old.strip() else []
        if len(found) != 1:
            times = "are not" if not found else f"stand {len(found)} times"
            more = "" if not found else "; give the words beside them too"
            raise InputError(f"The words {short(old)} {times} in the prompt so far, {short(prompt)}{more}.")
        prompt = new.strip().join(re.split(_whole(old), prompt))
    prompt = " ".join(prompt.split())
    if not prompt:
        raise InputError("These changes leave no words of the prompt.")
    return prompt


def _whole(words: str) -> str:
    """The words as a pattern: any space between them, no letter on either side."""
    return r"(?<!\w)" + r"\s+".join(map(re.escape, words.split())) + r"(?!\w)"
