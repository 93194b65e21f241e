"""What of a prompt the text encoder reads: which words, in which tokens, and a warning of the rest."""

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from stableflow.errors import InterventionError
from stableflow.models.base import Word

WORD = re.compile(r"\S+")
MARK = "\ue000"  # a character of private use: no template holds it
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
                stacklevel=6,
            )
        unknown = _unknown_words(tokenizer, prompt)
        if unknown:
            warnings.warn(
                f"The model does not know {', '.join(map(repr, unknown))} in {prompt!r}.{_vocabulary(tokenizer)}",
                PromptWarning,
                stacklevel=6,
            )


def _unknown_words(tokenizer: Any, prompt: str) -> list[str]:
    if tokenizer.unk_token_id is None:
        return []

    def is_unknown(word: str) -> bool:
        return tokenizer.unk_token_id in tokenizer(word, add_special_tokens=False, padding=False).input_ids

    return [word for word in dict.fromkeys(prompt.split()) if is_unknown(word)]


def vocabulary(tokenizer: Any) -> tuple[str, ...]:
    """Return the words that a tokenizer knows, where it knows no others and they are few enough to list; else none."""
    if tokenizer.unk_token_id is None or len(tokenizer) > SMALL_VOCABULARY:
        return ()
    special = set(tokenizer.all_special_tokens)
    return tuple(sorted(word for word in tokenizer.get_vocab() if word not in special))


def _vocabulary(tokenizer: Any) -> str:
    known = vocabulary(tokenizer)
    return f" It knows: {', '.join(known)}." if known else ""


@dataclass(frozen=True)
class Reader:
    """How one text encoder reads a prompt.

    Args:
        tokenizer: Its tokenizer.
        limit: Tokens that the tokenizer may give.
        around: The text that the tokenizer reads, from the prompt: a chat template.
        first: Which of the tokenizer's tokens is the first text token of the transformer.
        padded: Whether the tokenizer fills up to the limit, which some do in front.
        joint: Whether its tokens are among the transformer's text tokens, not only pooled.
    """

    tokenizer: Any
    limit: int
    around: Callable[[str], str] = str
    first: int = 0
    padded: bool = False
    joint: bool = True

    @property
    def room(self) -> int:
        """Tokens that a template leaves for the prompt."""
        if self.around is str:
            return self.limit
        return self.limit - max(self.first, len(self.tokenizer(self.around("")).input_ids))


def split_words(prompt: str, *readers: Reader) -> tuple[Word, ...]:
    """Return the words of a prompt, as spaces divide it, with the positions of their text tokens, of all readers.

    Words beyond the limit are left out, and so are end and padding tokens, which belong to no word.

    Raises:
        InterventionError: A tokenizer does not tell which characters a token stands for.
    """
    tokens = [_tokens_of_words(reader, prompt) for reader in readers]
    words = [
        Word(word.group(), tuple(token for own in places for token in own))
        for word, *places in zip(WORD.finditer(prompt), *tokens, strict=True)
    ]
    return tuple(word for word in words if word.tokens)


def _tokens_of_words(reader: Reader, prompt: str) -> list[tuple[int, ...]]:
    """Return the positions of every word's tokens, none where a word is cut off."""
    tokenizer = reader.tokenizer
    if not tokenizer.is_fast:
        raise InterventionError(
            f"{type(tokenizer).__name__} does not tell which characters its tokens stand for, so attention cannot be "
            "given by words. Load the model with its fast tokenizer (a folder that holds tokenizer.json)."
        )
    text = reader.around(prompt)
    begin = text.index(prompt.strip(), reader.around(MARK).index(MARK))
    encoded = tokenizer(
        text,
        truncation=True,
        max_length=reader.limit,
        padding="max_length" if reader.padded else False,
        add_special_tokens=not (tokenizer.bos_token and text.startswith(tokenizer.bos_token)),  # or there would be two
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
    )
    ends = [begin + word.end() for word in WORD.finditer(prompt.strip())]
    tokens: list[list[int]] = [[] for _ in ends]
    spans = zip(encoded["offset_mapping"], encoded["special_tokens_mask"])
    for position, ((start, end), special) in enumerate(spans, start=-reader.first):
        # A token may start with the space before its word, or be that space alone: it goes with the word that follows.
        found = next((i for i, word_end in enumerate(ends) if word_end > start), None)
        if not special and found is not None and end > max(start, begin) and position >= 0:
            tokens[found].append(position)
    return [tuple(own) for own in tokens]
