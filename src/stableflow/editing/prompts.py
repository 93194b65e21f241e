"""Encoded prompts, remembered by model, so that a prompt used again is not encoded again."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from weakref import WeakKeyDictionary, ref

from torch import Tensor

from stableflow.checks import check_texts
from stableflow.editing.references import References, referring
from stableflow.errors import InputError
from stableflow.models.base import Conditioning, FlowModel
from stableflow.models.guidance import NEGATIVE

REMEMBERED = 16  # prompts; 4 MB each for FLUX.1 in bfloat16


class PromptCache:
    """Encodes prompts one by one and remembers the last ones.

    What a prompt is encoded to does not depend on the others of its request. Adapters loaded later empty the
    cache; after a change of the text encoders' weights by hand, wrap the model again.

    Args:
        model: Encodes what is not known yet.
        size: Prompts to remember.
    """

    def __init__(self, model: FlowModel, size: int = REMEMBERED):
        self._model = ref(model)
        self._size = size
        self._known: OrderedDict[str, Conditioning] = OrderedDict()
        self._made_with: object = None

    def encode(self, prompts: str | Sequence[str] | Conditioning) -> Conditioning:
        """Return the conditioning of one or more prompts; one that is encoded already passes through.

        Raises:
            InputError: There is no prompt, or one is empty or no text.
        """
        if isinstance(prompts, Conditioning):
            return prompts
        texts, model = checked_prompts(prompts), self._model()
        assert model is not None, "a cache lives as long as its model"
        made_with = (model.modifications, model.device)
        if made_with != self._made_with:
            self._known.clear()
            self._made_with = made_with
        rows = [self._encode(model, text) for text in texts]
        return rows[0] if len(rows) == 1 else Conditioning.concat(rows)

    def _encode(self, model: FlowModel, text: str) -> Conditioning:
        if text not in self._known:
            self._known[text] = model.encode_prompt([text])
        self._known.move_to_end(text)
        while len(self._known) > self._size:
            self._known.popitem(last=False)
        return self._known[text]


_CACHES: WeakKeyDictionary[FlowModel, PromptCache] = WeakKeyDictionary()


def encode_prompts(
    model: FlowModel, prompts: str | Sequence[str] | Conditioning, *, negative: str | None = None
) -> Conditioning:
    """Return the conditioning of one or more prompts, from the model's cache; one that is encoded passes through.

    Args:
        negative: What classifier-free guidance leads away from, instead of the family's own negative prompt.

    Raises:
        InputError: There is no prompt, one is empty or no text, or the model takes no negative prompt.
    """
    cache = _CACHES.get(model)
    if cache is None:
        cache = _CACHES[model] = PromptCache(model)
    conditioning = cache.encode(prompts)
    return conditioning if negative is None else with_negative(conditioning, cache.encode(negative))


def source_prompt(
    model: FlowModel,
    prompt: str | Conditioning,
    *,
    negative: str | None = None,
    reference: References | None = None,
) -> Conditioning:
    """Return the conditioning of a source, which has one prompt and may have reference pictures.

    Raises:
        InputError: Several prompts were given, or what `encode_prompts` refuses.
    """
    if not isinstance(prompt, str | Conditioning) or (len(prompt) != 1 and isinstance(prompt, Conditioning)):
        count = f"{len(prompt)} were given" if hasattr(prompt, "__len__") else f"got {prompt!r}"
        raise InputError(f"A source has one prompt, as text or its conditioning of one row; {count}.")
    return referring(model, encode_prompts(model, prompt, negative=negative), reference)[0]


def checked_prompts(prompts: str | Sequence[str]) -> tuple[str, ...]:
    """Return the texts of one or more prompts.

    Raises:
        InputError: There is none, one is empty or no text.
    """
    texts = check_texts("prompts", prompts)
    if not texts:
        raise InputError("No prompt was given; pass at least one edited prompt.")
    if not all(text.strip() for text in texts):
        raise InputError("A prompt is empty; describe the picture in words, such as 'a dog on the grass'.")
    return texts


def having_negative(told: Conditioning, fitted: Mapping[str, Tensor]) -> Conditioning:
    """Return a conditioning with these negative tensors, of one row and by their full names, in every row."""
    rows = {name: value.expand(len(told), *value.shape[1:]).to(told.tensors[name]) for name, value in fitted.items()}
    return Conditioning(told.prompts, {**told.tensors, **rows})


def with_negative(conditioning: Conditioning, negative: Conditioning) -> Conditioning:
    """Put one prompt's tensors in the place of the family's own negative prompt.

    Raises:
        InputError: The model takes no negative prompt.
    """
    names = [name for name in conditioning.tensors if name.startswith(NEGATIVE)]
    if not names:
        raise InputError(
            "This model takes no negative prompt: it has no classifier-free guidance. Leave the negative prompt out."
        )
    rows = len(conditioning)
    own = {name: negative.tensors[name.removeprefix(NEGATIVE)] for name in names}
    repeated = {name: tensor.expand(rows, *tensor.shape[1:]) for name, tensor in own.items()}
    return Conditioning(conditioning.prompts, {**conditioning.tensors, **repeated})
