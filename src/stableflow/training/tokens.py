"""The word-level tokenizer of the bundled model's two text encoders."""

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from stableflow.scenes import vocabulary

TEXT_TOKENS = 28
PAD, END, BEGIN, UNKNOWN = "<pad>", "</s>", "<bos>", "<unk>"


def words() -> list[str]:
    """Special tokens and every word of the scenes' captions; a word's place is its id."""
    return [PAD, END, BEGIN, UNKNOWN, *vocabulary()]


def tokenize(text: str) -> list[int]:
    """Return TEXT_TOKENS ids: the words, the end token, padding; what `make_tokenizer` returns for known words."""
    ids = {word: i for i, word in enumerate(words())}
    known = [ids[word] for word in text.split()][: TEXT_TOKENS - 1] + [ids[END]]
    return known + [ids[PAD]] * (TEXT_TOKENS - len(known))


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer as transformers saves and loads it."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words())}, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        bos_token=BEGIN,
        unk_token=UNKNOWN,
        model_max_length=TEXT_TOKENS,
        padding_side="right",
    )
