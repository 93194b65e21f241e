"""Going on from the weights of an earlier world's model, whose words and captions may be fewer."""

from pathlib import Path
from typing import Any

import torch

from stableflow.errors import LoadError
from stableflow.reading import read_json
from stableflow.training.tokens import words


@torch.no_grad()
def adopt(model: Any, folder: Path, *, tokenizer: Path | None = None, layers: int = 2) -> None:
    """Copy the weights in a component's folder into a model of its class, of diffusers or transformers.

    Embeddings of words are matched by word and those of positions by position; what the earlier world did not have
    stays as it was initialised.

    Args:
        folder: Of one component, as `save_pretrained` wrote it.
        tokenizer: Folder of the tokenizer that the weights were trained with, for models that read words.
        layers: Of the world whose words the model reads.

    Raises:
        LoadError: The weights belong to a model of another shape.
    """
    earlier = dict(type(model).from_pretrained(folder).named_parameters())
    known = _word_ids(tokenizer) if tokenizer is not None else {}
    for name, parameter in model.named_parameters():
        if name not in earlier:
            raise LoadError(f"{folder} holds no weights called {name}; it belongs to another kind of model.")
        weights = earlier[name].to(parameter)
        if name.endswith(("shared.weight", "embed_tokens.weight", "token_embedding.weight")):
            rows = [(i, known[word]) for i, word in enumerate(words(layers)) if word in known]
            now, before = map(list, zip(*rows))
            parameter[now] = weights[before]
        elif name.endswith("position_embedding.weight") and len(weights) <= len(parameter):
            parameter[: len(weights)] = weights
        elif weights.shape == parameter.shape:
            parameter.copy_(weights)
        else:
            raise LoadError(f"{name} has shape {tuple(weights.shape)} in {folder}, here {tuple(parameter.shape)}.")


def _word_ids(tokenizer: Path) -> dict[str, int]:
    path = tokenizer / "tokenizer.json"
    try:
        return dict(read_json(path)["model"]["vocab"])
    except (KeyError, TypeError, ValueError) as error:
        raise LoadError(f"{path} is no tokenizer of words: model.vocab is missing.") from error
