"""Tells the user what of a prompt the text encoder will not read."""

import warnings
from collections.abc import Sequence
from typing import Any

SMALL_VOCABULARY = 400  # words; up to here the whole vocabulary fits a message


class PromptWarning(UserWarning):
    """A part of a prompt has no effect on the picture."""


def warn_about_lost_text(tokenizer: Any, prompts: Sequence[str], limit: int) -> None:
    """Warn of text beyond `limit` tokens and of words that the tokenizer does not know."""
    for prompt in prompts:
        ids: list[int] = tokenizer(prompt, truncation=False, padding=False, verbose=False).input_ids
        if len(ids) > limit:
            lost = tokenizer.decode(ids[limit - 1 :], skip_special_tokens=True)
            warnings.warn(
                f"The prompt has {len(ids)} tokens and the text encoder reads {limit}: cut off was {lost!r}. "
                "Shorten the prompt, or raise max_sequence_length if the model allows it.",
                PromptWarning,
                stacklevel=4,
            )
        unknown = _unknown_words(tokenizer, prompt)
        if unknown:
            warnings.warn(
                f"The model does not know {', '.join(map(repr, unknown))} in {prompt!r}.{_vocabulary(tokenizer)}",
                PromptWarning,
                stacklevel=4,
            )


def _unknown_words(tokenizer: Any, prompt: str) -> list[str]:
    if tokenizer.unk_token_id is None:
        return []

    def is_unknown(word: str) -> bool:
        return tokenizer.unk_token_id in tokenizer(word, add_special_tokens=False, padding=False).input_ids

    return [word for word in dict.fromkeys(prompt.split()) if is_unknown(word)]


def _vocabulary(tokenizer: Any) -> str:
    if len(tokenizer) > SMALL_VOCABULARY:
        return ""
    special = set(tokenizer.all_special_tokens)
    return " It knows: " + ", ".join(sorted(word for word in tokenizer.get_vocab() if word not in special)) + "."
