"""What is wished for: edited prompts, each with its own region and guidance if it likes."""

from collections.abc import Sequence
from dataclasses import dataclass

from stableflow.checks import check_guidance, check_number, check_text
from stableflow.editing.where import Where, check_kind
from stableflow.errors import InputError
from stableflow.models.base import Conditioning
from stableflow.reading import short
from stableflow.region import Region


@dataclass(frozen=True)
class Edit:
    """One wish; a plain string is `Edit(prompt)`.

    Args:
        prompt: The edited prompt.
        region: Where it may act, instead of the region of the call.
        guidance_scale: Of this edit, instead of the editor's.
        strength: Of this edit, instead of the editor's; of editors that hold each edit for itself (`strength_each`).
    """

    prompt: str
    region: Where | None = None
    guidance_scale: float | None = None
    strength: float | None = None

    def __post_init__(self) -> None:
        check_text("prompt", self.prompt)
        if self.region is not None and not (isinstance(self.region, Region | str) or callable(self.region)):
            raise InputError(f"region must be a Region, its description or a function, got {short(self.region)}.")
        if isinstance(self.region, str):
            check_kind(self.region)
        if isinstance(self.guidance_scale, list | tuple):
            raise InputError(f"guidance_scale of one Edit is one number, got {short(self.guidance_scale)}.")
        check_guidance("guidance_scale", self.guidance_scale)
        if self.strength is not None:
            check_number("strength", self.strength, 0, 1)


Wishes = str | Edit | Sequence[str | Edit] | Conditioning


def as_edits(wishes: Wishes) -> tuple[Edit, ...]:
    """Return one `Edit` a wish.

    Raises:
        InputError: There is none, or one is no text.
    """
    if isinstance(wishes, Conditioning):
        return tuple(Edit(prompt) for prompt in wishes.prompts)
    given = [wishes] if isinstance(wishes, str | Edit) else wishes
    if not isinstance(given, list | tuple):
        raise InputError(f"prompts must be text, an Edit, or a list of them, got {type(given).__name__}.")
    for wish in given:
        if not isinstance(wish, str | Edit):
            raise InputError(f"prompts must be text or Edit(prompt, ...), got {short(wish)} among them.")
    return tuple(wish if isinstance(wish, Edit) else Edit(wish) for wish in given)
