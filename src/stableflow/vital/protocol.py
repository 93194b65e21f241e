"""How vitality is measured: the paper's protocol, and quicker ones that say how far they are from it."""

from dataclasses import dataclass

from stableflow.checks import check_count, check_number, check_seed, check_steps
from stableflow.errors import InputError
from stableflow.registry import Registry

LARGEST_BATCH = 4096


@dataclass(frozen=True)
class Protocol:
    """Settings of a measurement.

    Args:
        prompts: How many, from the first of the set.
        num_steps: Euler steps.
        batch: Prompts that run together; part of the protocol, since a batch decides the last digits. When None, as
            many as have 1024 image tokens together, which is one at FLUX's usual size.
        scale: Height and width as a share of the model's own, down to 64 image tokens.
        guidance_scale: The model's usual one when None.
        first_seed: Prompt i is drawn from the noise of seed first_seed + i, in all of its runs.
        racing: Stop measuring a layer once it is clear on which side of the boundary it lies.
        confidence: Of that decision, over all layers together.
        least: Prompts that every layer is measured on before any is decided, under racing.
    """

    prompts: int = 64
    num_steps: int = 15
    batch: int | None = None
    scale: float = 1.0
    guidance_scale: float | None = None
    first_seed: int = 0
    racing: bool = False
    confidence: float = 0.95
    least: int = 4

    def __post_init__(self) -> None:
        hint = "Vitality needs at least 2 prompts for an interval (the paper uses 64)."
        check_count("prompts", self.prompts, 2, hint=hint)
        check_steps("num_steps", self.num_steps)
        check_seed("first_seed", self.first_seed)
        check_seed("first_seed + prompts", self.first_seed + self.prompts)
        if self.batch is not None:
            check_count("batch", self.batch, 1, LARGEST_BATCH)
        if self.guidance_scale is not None:
            check_number("guidance_scale", self.guidance_scale, 0)
        check_number("scale", self.scale, 0, 1, above=True)
        check_number("confidence", self.confidence, 0, 1, above=True)
        check_count("least", self.least, 2)
        if self.confidence == 1:
            raise InputError("confidence must lie in (0, 1), got 1: nothing is ever certain.")


PROTOCOLS: Registry[Protocol] = Registry("protocol")
PROTOCOLS.register("exact")(Protocol())
PROTOCOLS.register("racing")(Protocol(batch=4, racing=True))
PROTOCOLS.register("fast")(Protocol(prompts=12, num_steps=4, batch=4, scale=0.5, racing=True))
