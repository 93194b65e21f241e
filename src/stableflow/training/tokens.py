"""The word-level tokenizer of the bundled model's two text encoders."""

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from stableflow.scenes import vocabulary

TEXT_TOKENS = 28
LENGTHS = {2: TEXT_TOKENS, 3: 40}
"""Tokens of every caption in a world of so many layers: the longest that an edit can make, and the end token."""
PAD, END, BEGIN, UNKNOWN = "<pad>", "</s>", "<bos>", "<unk>"


def words(layers: int = 2) -> list[str]:
    """Special tokens and every word of the captions of such a world; a word's place is its id."""
    return [PAD, END, BEGIN, UNKNOWN, *vocabulary(layers)]


def tokenize(text: str, layers: int = 2) -> list[int]:
    """Return one length of ids: the words, the end token, padding; what `make_tokenizer` returns for known words."""
    ids, length = {word: i for i, word in enumerate(words(layers))}, LENGTHS[layers]
    known = [ids[word] for word in text.split()][: length - 1] + [ids[END]]
    return known + [ids[PAD]] * (length - len(known))


def make_tokenizer(layers: int = 2) -> PreTrainedTokenizerFast:
    """Return the tokenizer as transformers saves and loads it."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words(layers))}, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        bos_token=BEGIN,
        unk_token=UNKNOWN,
        model_max_length=LENGTHS[layers],
        padding_side="right",
    )
