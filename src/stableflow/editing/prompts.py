"""The encoded prompts of a session, so that a prompt used again is not encoded again."""

from collections import OrderedDict
from collections.abc import Sequence

from stableflow.editing.passes import encode_prompts
from stableflow.models.base import Conditioning, FlowModel

REMEMBERED = 16  # prompts; 4 MB each for FLUX.1 in bfloat16


class PromptCache:
    """Encodes prompts one by one and remembers the last ones.

    What a prompt is encoded to does not depend on the others of its request. Adapters loaded later empty the
    cache; after a change of the text encoders' weights by hand, make a new editor.

    Args:
        model: Encodes what is not known yet.
        size: Prompts to remember.
    """

    def __init__(self, model: FlowModel, size: int = REMEMBERED):
        self._model = model
        self._size = size
        self._known: OrderedDict[str, Conditioning] = OrderedDict()
        self._made_with: object = None

    def encode(self, prompts: str | Sequence[str] | Conditioning) -> Conditioning:
        """Return the conditioning of one or more prompts; one that is encoded already passes through.

        Raises:
            InputError: There is no prompt, or one is empty.
        """
        if isinstance(prompts, Conditioning):
            return prompts
        texts = [prompts] if isinstance(prompts, str) else list(prompts)
        if not texts or not all(text.strip() for text in texts):
            return encode_prompts(self._model, texts)  # says what is wrong
        made_with = (self._model.modifications, self._model.device)
        if made_with != self._made_with:
            self._known.clear()
            self._made_with = made_with
        rows = [self._encode(text) for text in texts]
        return rows[0] if len(rows) == 1 else Conditioning.concat(rows)

    def _encode(self, text: str) -> Conditioning:
        if text not in self._known:
            self._known[text] = encode_prompts(self._model, text)
        self._known.move_to_end(text)
        while len(self._known) > self._size:
            self._known.popitem(last=False)
        return self._known[text]
