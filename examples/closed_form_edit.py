"""Does TIME's closed-form edit of a text projection work in a FLUX? `python examples/closed_form_edit.py`.

W' = (a W + sum W c* c^T)(a I + sum c c^T)^-1 for the projection of the text, c the tokens of prompts with the old word
and c* those with the new one. Then prompts that were not fitted are drawn, and the bundled classifier reads them.
"""

from dataclasses import dataclass

import torch

import stableflow as sf
from stableflow.metrics.attributes import AttributeClassifier
from stableflow.models.load import bundled_path

OLD, NEW, ATTRIBUTE = "red", "blue", "colour"
FITTED = ["a {} dog standing on the grass at noon", "a {} cat sitting in the snow at night"]
ASKED = [
    "a {} bird standing on the beach at sunset", "a {} dog sitting in the street at noon",
    "a {} cat jumping on the grass at night", "a {} dog jumping in the snow at sunset",
]  # fmt: skip
OTHERS = ["white", "black"]  # words that must stay what they are
SEEDS, STEPS = 1, 8


@dataclass(frozen=True)
class Fit:
    """A linear map edited in closed form."""

    ridge: float

    def __call__(self, weight: torch.Tensor, old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        left = self.ridge * weight + (new @ weight.T).T @ old
        right = self.ridge * torch.eye(weight.shape[1]) + old.T @ old
        return torch.linalg.solve(right, left.T).T


def main() -> None:
    model = sf.load("tiny")
    editor, classifier = sf.StableFlow(model, layers=[]), AttributeClassifier.load(bundled_path("classifier"))
    transformer = model.pipeline.transformer
    sites = {"encoder_hidden_states": transformer.context_embedder, "pooled_projections": pooled(transformer)}
    kept = {name: site.weight.detach().clone() for name, site in sites.items()}

    def share(words: list[str], wanted: str | None) -> float:
        right, total = 0, 0
        for word in words:
            for prompt in ASKED:
                for seed in range(SEEDS):
                    told = model.encode_prompt([prompt.format(word)])  # not from the cache: the weights change
                    image = editor.generate(told, seed=seed, num_steps=STEPS).images
                    right += classifier.read(image)[0][ATTRIBUTE] == (wanted or word)
                    total += 1
        return right / total

    drawn = share([OLD], OLD), share([OLD], NEW), share(OTHERS, None)
    print(f"before: {OLD} drawn {OLD} {drawn[0]:.2f}, {NEW} {drawn[1]:.2f}, others kept {drawn[2]:.2f}")
    for chosen in (["encoder_hidden_states"], list(sites)):
        for ridge in (10.0, 0.1):
            with torch.no_grad():
                for name in chosen:
                    rows = [model.encode_prompt([p.format(w) for p in FITTED]).tensors[name] for w in (OLD, NEW)]
                    old, new = (tensor.float().reshape(-1, tensor.shape[-1]) for tensor in rows)
                    sites[name].weight.copy_(Fit(ridge)(kept[name], old, new))
                figures = share([OLD], NEW), share(OTHERS, None)
                for name in chosen:
                    sites[name].weight.copy_(kept[name])
            which = " and ".join(chosen)
            print(f"{which}, ridge {ridge:g}: {OLD} drawn {NEW} {figures[0]:.2f}, others kept {figures[1]:.2f}")


def pooled(transformer: torch.nn.Module) -> torch.nn.Linear:
    return transformer.time_text_embed.text_embedder.linear_1


if __name__ == "__main__":
    main()
