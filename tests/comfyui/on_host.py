"""The nodes called as a graph calls them, on a tiny random FLUX."""

from typing import Any

import torch

PROMPT, TARGET, NEGATIVE = "a red dog standing on the grass", "a blue dog sitting on the grass", "a car"
STEPS = 4


class Setting:
    """A host's model and the library's, of the same weights."""

    def __init__(self, pack: Any, model: Any, library: Any):
        self.pack, self.model, self.library = pack, model, library
        self.sigmas = torch.tensor(library.time_grid(STEPS, 16, 16).times)
        self.size = (1, *library.latent_shape(16, 16))

    def node(self, name: str, **given: Any) -> tuple[Any, ...]:
        """Run a node; a MODEL is given where it takes one."""
        node = self.pack.nodes[f"StableFlow{name}"]
        if "model" not in given and any(port.id == "model" for port in node.GET_SCHEMA().inputs):
            given["model"] = self.model
        return node.execute(**given).args

    def prompt(self, text: str, guidance: float = 3.5) -> Any:
        """Return the CONDITIONING of a prompt."""
        tensors = self.library.encode_prompt([text]).tensors
        rest = {"pooled_output": tensors["pooled_projections"], "guidance": guidance}
        return [[tensors["encoder_hidden_states"], rest]]

    def hold(self, layers: str) -> Any:
        return self.node("VitalLayers", preset="written below", layers=layers, weight=1.0)[0]

    def dial(self, strength: float) -> Any:
        return self.node("Strength", strength=strength)[0]

    def source(
        self, theirs: Any, *, cfg: float = 1.0, negative: str | None = None, keep: Any = None, sampler="euler"
    ) -> Any:
        """Draw the library's source again by the node, from the same noise."""
        drawing, noise_for = self.pack.host, self.pack.host.noise_for
        drawing.noise_for = lambda samples, seed: theirs.path.at(1.0)
        try:
            source, latent, _ = self.node(
                "Source", seed=3, steps=STEPS, cfg=cfg, sampler_name=sampler, scheduler="simple",
                positive=self.prompt(PROMPT), latent={"samples": torch.zeros(self.size)}, keep=keep, sigmas=self.sigmas,
                negative=None if negative is None else self.prompt(negative),
            )  # fmt: skip
        finally:
            drawing.noise_for = noise_for
        assert latent["samples"].shape == self.size
        self._start = theirs.path.at(1.0)
        return source

    def edit(
        self, source: Any, hold: Any, *, prompt: str = TARGET, guidance: float = 3.5, mask: Any = None, rows: int = 1,
        cfg: float = 1.0, negative: str = NEGATIVE, sampler: str = "euler", sigmas: Any = None, model: Any = None,
        **inject: Any,
    ) -> torch.Tensor:  # fmt: skip
        """Inject and sample, with any noise."""
        model = self.model if model is None else model
        patched = self.node("Inject", model=model, source=source, hold=hold, mask=mask, **inject)[0]
        return self.sample(patched, prompt, guidance, rows, cfg, negative, sampler, sigmas)

    def free(self) -> torch.Tensor:
        """The edited prompt from the source's noise, nothing held."""
        return self.sample(self.model, TARGET, noise=self._start)

    def sample(
        self, model, prompt, guidance=3.5, rows=1, cfg=1.0, negative=NEGATIVE, sampler="euler", sigmas=None, noise=None
    ):
        empty = torch.zeros(rows, *self.size[1:])
        noise = torch.randn(empty.shape, generator=torch.Generator().manual_seed(9)) if noise is None else noise
        return self.pack.host.run(
            model, sampler, self.sigmas if sigmas is None else sigmas, self.prompt(prompt, guidance),
            self.prompt(negative, guidance), cfg, noise=noise, latent=empty, seed=3,
        )  # fmt: skip
