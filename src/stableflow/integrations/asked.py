"""What a pipeline's call asks for, as the library's sources and edits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from stableflow.editing import EDITORS
from stableflow.editing.base import Editor
from stableflow.editing.result import EditResult
from stableflow.editing.source import Source
from stableflow.errors import InputError, unknown_name
from stableflow.flow.integrate import Callback
from stableflow.images import PictureLike
from stableflow.integrations.tensors import from_argument
from stableflow.models.model import DiffusersModel
from stableflow.region import Region
from stableflow.types import Latents


@dataclass(frozen=True, eq=False)
class Asked:
    """The part of a call that decides sources and rows; names as in `StableFlowPipeline.__call__`."""

    image: PictureLike | None
    prompts: tuple[str, ...]
    source_prompt: str | None
    source: Source | None
    height: int | None
    width: int | None
    num_inference_steps: int | None
    guidance_scale: float | None
    num_images_per_prompt: int
    generator: torch.Generator | Sequence[torch.Generator] | None
    latents: Tensor | None

    def __post_init__(self) -> None:
        if self.source is not None and (self.image is not None or self.source_prompt is not None):
            raise InputError("source is a picture and its prompt already; leave image and source_prompt out.")
        if self.source is None and self.source_prompt is None:
            raise InputError(
                "source_prompt is missing: say in words what the picture shows now, such as 'a dog on the grass'. "
                "Edits keep what the two prompts have in common."
            )
        if isinstance(self.generator, Sequence) and len(self.generator) != self.rows:
            raise InputError(
                f"{len(self.generator)} generators were given for {self.rows} pictures ({len(self.prompts)} prompts x "
                f"{self.num_images_per_prompt}); pass one, or one a picture."
            )

    @property
    def rows(self) -> int:
        """Pictures that are asked for."""
        return len(self.prompts) * self.num_images_per_prompt


@dataclass(frozen=True, eq=False)
class Drawing:
    """One source and the edits of it.

    Args:
        rows: Where its edits go among the pictures of the call.
        noise: Of a source that is drawn.
    """

    editor: Editor
    asked: Asked
    rows: tuple[int, ...]
    noise: Latents | None = None

    def source(self, callback: Callback | None) -> Source:
        """Return the source: the one given, the picture's, or one drawn from the noise."""
        asked = self.asked
        if asked.source is not None:
            return asked.source
        assert asked.source_prompt is not None
        size: dict[str, Any] = {"height": asked.height, "width": asked.width, "callback": callback}
        own_steps = "num_steps" in self.editor.setting_names()
        steps = {} if asked.num_inference_steps is None or own_steps else {"num_steps": asked.num_inference_steps}
        if asked.image is not None:
            return self.editor.invert(asked.image, asked.source_prompt, **steps, **size)
        guidance = {"guidance_scale": asked.guidance_scale, "latents": self.noise}
        return self.editor.generate(asked.source_prompt, **guidance, **steps, **size)

    def edit(self, source: Source, *, region: Any, callback: Callback | None) -> EditResult:
        """Return the edits."""
        prompts = [self.asked.prompts[row // self.asked.num_images_per_prompt] for row in self.rows]
        return self.editor.edit(source, prompts, region=region, callback=callback)


def editor_for(
    model: DiffusersModel,
    name: str,
    asked: Asked,
    strength: float | None,
    negative: str | None,
    layers: Any,
    more: Mapping[str, Any],
) -> Editor:
    """Return the editor of a name with the settings of a call.

    Raises:
        UnknownNameError: There is no such editor, or it has no such setting.
    """
    kind = EDITORS[name]
    known = kind.setting_names()
    given = {"strength": strength, "negative": negative, "layers": layers, **more}
    given["guidance_scale"] = asked.guidance_scale
    if "num_steps" in known:
        given["num_steps"] = asked.num_inference_steps
    given = {setting: value for setting, value in given.items() if value is not None}
    for setting in given:
        if setting not in known:
            raise unknown_name(f"setting of {name}", setting, known)
    return kind(model, **given)


def drawings(model: DiffusersModel, editor: Editor, asked: Asked) -> list[Drawing]:
    """Return the sources of a call and which of its pictures are edits of each: one a noise.

    Raises:
        InputError: Several pictures of a prompt are asked of an editor that draws no noise.
    """
    count, prompts = asked.num_images_per_prompt, range(len(asked.prompts))
    if isinstance(asked.generator, Sequence):
        groups = [((row,), generator) for row, generator in enumerate(asked.generator)]
    else:
        groups = [(tuple(prompt * count + i for prompt in prompts), asked.generator) for i in range(count)]
    if asked.image is None and asked.source is None:
        return [Drawing(editor, asked, rows, _noise(model, asked, own, len(groups))) for rows, own in groups]
    if "seed" in editor.setting_names():
        return [Drawing(_seeded(editor, own, rows[0] % count), asked, rows) for rows, own in groups]
    if count > 1:
        raise InputError(
            f"{count} pictures of a prompt were asked for, and {editor.name} makes the same one of a picture every "
            "time: inversion draws no noise. Ask for one, vary strength or prompt, or take an editor with a seed."
        )
    return [Drawing(editor, asked, tuple(prompts))]


def _seeded(editor: Editor, generator: torch.Generator | None, number: int) -> Editor:
    """The editor with the generator's seed, counted on from picture to picture of a prompt."""
    return editor if generator is None else editor.having(seed=generator.initial_seed() + number)


def _noise(model: DiffusersModel, asked: Asked, generator: torch.Generator | None, of: int) -> Latents | None:
    """The next noise of a generator, float32; None leaves it to the library."""
    height, width = asked.height or model.default_size[0], asked.width or model.default_size[1]
    if asked.latents is not None:
        if of > 1:
            raise InputError("latents are the noise of one source; leave num_images_per_prompt and generators out.")
        return from_argument(model, asked.latents, height, width)
    if generator is None:
        return None
    shape = (1, *model.latent_shape(height, width))
    return randn_tensor(shape, generator=generator, device=model.device, dtype=torch.float32)


def region_for(mask_image: Any, region: Any) -> Any:
    """Return where the edits may act, from diffusers' `mask_image` or the library's `region`.

    Raises:
        InputError: Both were given.
    """
    if mask_image is None:
        return region
    if region is not None:
        raise InputError("Give mask_image or region, not both: each says where the edits may act.")
    return Region.from_mask(mask_image)
