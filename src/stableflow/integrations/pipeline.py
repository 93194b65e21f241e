"""A pipeline shaped as diffusers' own: load, offload, call, `.images`; the edit is the library's to the last bit."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from torch import Tensor

from stableflow.checks import check_choice, check_count
from stableflow.editing.base import Editor
from stableflow.editing.prompts import checked_prompts
from stableflow.editing.result import EditResult
from stableflow.editing.source import Source
from stableflow.errors import InputError
from stableflow.images import PictureLike
from stableflow.integrations.asked import Asked, drawings, editor_for, region_for
from stableflow.integrations.steps import Interrupted, Steps
from stableflow.integrations.tensors import OUTPUT_TYPES, as_output
from stableflow.models.bundled import BUNDLED, bundled_model
from stableflow.models.families import family_of, wrap
from stableflow.models.model import DiffusersModel
from stableflow.quiet import import_libraries


@dataclass
class StableFlowPipelineOutput(BaseOutput):
    """What a call returns.

    Args:
        images: One a prompt and image asked for, in the order of diffusers: all of the first prompt come first.
        results: The library's own results, one for each source: latents, recipes, `save`.
        sources: What was edited; pass one as `source=` to edit it again without inverting it again.
    """

    images: Any
    results: list[EditResult]
    sources: list[Source]


class StableFlowPipeline(DiffusionPipeline):
    """Stable Flow behind the interface of diffusers' pipelines, for every family that `stableflow.load` reads.

    `from_pretrained` and `from_pipe` return a pipeline that is one of the checkpoint's own class (a FLUX checkpoint
    gives a `FluxPipeline` whose call edits), so that its components, LoRA loaders, offloading, VAE tiling, progress
    bar and `save_pretrained` are diffusers'.

    Example:
        >>> pipe = StableFlowPipeline.from_pretrained("tiny")
        >>> picture = pipe(prompt="a red dog sitting", source_prompt="a red dog standing").images[0]
    """

    _callback_tensor_inputs: ClassVar[list[str]] = ["latents"]

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **settings: Any) -> Any:
        """Load as diffusers does: a hub id, a folder, or the bundled "tiny".

        Args:
            settings: As of `DiffusionPipeline.from_pretrained`; weights are read from .safetensors files only.
        """
        import_libraries()
        name = pretrained_model_name_or_path
        location = bundled_model(str(name)) if str(name) in BUNDLED else name
        settings = {"use_safetensors": True, **settings}
        if cls is not StableFlowPipeline:
            return super().from_pretrained(location, **settings)
        hub = {"cache_dir", "revision", "token", "local_files_only", "force_download", "proxies"}
        config: Any = DiffusionPipeline.load_config(location, **{key: settings[key] for key in hub & set(settings)})
        import diffusers

        return edits(getattr(diffusers, str(dict(config)["_class_name"]))).from_pretrained(location, **settings)

    @classmethod
    def from_pipe(cls, pipeline: Any, **components: Any) -> Any:
        """Return a pipeline over the same parts as one that is loaded already; no weight is copied or cast.

        Args:
            pipeline: Of a class that a family reads.
            components: Parts to put in the place of its own.
        """
        made_class = edits(type(pipeline)) if cls is StableFlowPipeline else cls
        known = inspect.signature(made_class.__init__).parameters
        given = {**pipeline.config, **pipeline.components, **components}
        made = made_class(**{name: value for name, value in given.items() if name in known})
        made.register_to_config(_name_or_path=pipeline.config.get("_name_or_path"))
        return made

    def save_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]: all of its settings are passed on
        self, save_directory: Any, **settings: Any
    ) -> None:
        """Save as a plain pipeline of the checkpoint's own class: nothing of the edit is in the weights."""
        plain = host_of(type(self))
        known = inspect.signature(plain.__init__).parameters
        given: dict[str, Any] = {**self.config, **self.components}
        made = plain(**{name: value for name, value in given.items() if name in known})
        made.save_pretrained(save_directory, **settings)

    @torch.no_grad()
    def __call__(
        self,
        image: PictureLike | None = None,
        prompt: str | Sequence[str] | None = None,
        source_prompt: str | None = None,
        *,
        negative_prompt: str | None = None,
        mask_image: Any = None,
        region: Any = None,
        strength: float | None = None,
        source: Source | None = None,
        editor: str = "stable-flow",
        layers: str | Sequence[int] | None = None,
        editor_kwargs: Mapping[str, Any] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        num_images_per_prompt: int = 1,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        latents: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[..., Any] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        max_sequence_length: int | None = None,
    ) -> Any:
        """Edit a picture, or draw one from `source_prompt` and edit that.

        Args:
            image: The picture to edit; drawn from the generator's noise when None.
            prompt: What it should show: one or several edited prompts, which run together.
            source_prompt: What it shows.
            negative_prompt: For families with classifier-free guidance.
            mask_image: White where the edit may act: a picture. `region` takes all else that `Region` or a
                description such as "word:dog" can say.
            strength: 0 is the picture itself, 1 the freest edit; the method's own settings when None.
            source: From an earlier call's `sources`, instead of image and source_prompt.
            editor: A name in `stableflow.editing.EDITORS`.
            layers: "vital", "all" or numbers, for editors that hold layers.
            editor_kwargs: More of that editor's settings.
            height, width: Pixels; the picture's own, or the checkpoint's.
            num_inference_steps, guidance_scale: The editor's own when None.
            num_images_per_prompt: Each of other noise.
            generator: Of the noise; a list has one a picture, as in diffusers.
            latents: The noise itself, of a drawn source.
            output_type: "pil", "np", "pt" or "latent".
            return_dict: False returns (images, results, sources).
            callback_on_step_end: Called as (pipeline, step, timestep, tensors) after each step of the edit. It sees
                and cannot steer; `pipeline._interrupt = True` ends the run at once with the pictures as they stand.
            max_sequence_length: Text tokens of every prompt.

        Raises:
            InputError: A setting is out of range, or what is asked cannot be; says what to do.
        """
        check_choice("output_type", output_type, OUTPUT_TYPES)
        model = self._model(max_sequence_length)
        asked = Asked(
            image, prompts_of(prompt), source_prompt, source, height, width, num_inference_steps, guidance_scale,
            check_count("num_images_per_prompt", num_images_per_prompt), generator, latents,
        )  # fmt: skip
        chosen = editor_for(model, editor, asked, strength, negative_prompt, layers, editor_kwargs or {})
        self._interrupt, self._guidance_scale = False, guidance_scale
        steps = Steps(self, model, callback_on_step_end, callback_on_step_end_tensor_inputs)
        made = self._run(model, chosen, asked, region_for(mask_image, region), steps, output_type)
        self.maybe_free_model_hooks()
        return made if return_dict else made.to_tuple()

    def _run(
        self, model: DiffusersModel, editor: Editor, asked: Asked, region: Any, steps: Steps, output_type: str
    ) -> StableFlowPipelineOutput:
        """Make every source, then its edits; pictures are put in diffusers' order."""
        rows: dict[int, Any] = {}
        made = StableFlowPipelineOutput([], [], [])
        for drawing in drawings(model, editor, asked):
            try:
                with steps.bar() as callback:
                    source = drawing.source(callback)
                made.sources.append(source)
                with steps.bar(told=True) as callback:
                    result = drawing.edit(source, region=region, callback=callback)
            except Interrupted as interrupted:
                rows |= dict(zip(drawing.rows, interrupted.output(model, len(drawing.rows), output_type)))
                break
            made.results.append(result)
            rows |= dict(zip(drawing.rows, as_output(model, result, output_type)))
        made.images = OUTPUT_TYPES[output_type]([rows[row] for row in sorted(rows)])
        return made

    def _model(self, max_sequence_length: int | None) -> DiffusersModel:
        """The library's view of this pipeline, kept so that encoded prompts are remembered."""
        known = self.__dict__.setdefault("_stableflow_models", {})
        if max_sequence_length not in known:
            place = str(self.config.get("_name_or_path") or type(self).__name__)
            name = Path(place).name if Path(place).is_dir() else place  # recipes hold names, no local paths
            known[max_sequence_length] = wrap(self, name=name, max_sequence_length=max_sequence_length)
        return known[max_sequence_length]


def prompts_of(prompt: Any) -> tuple[str, ...]:
    """Return the edited prompts."""
    if prompt is None:
        raise InputError("prompt is missing: say what the picture should show, and in source_prompt what it shows.")
    return checked_prompts(prompt if isinstance(prompt, str) else list(prompt))


def host_of(pipeline_class: type) -> type:
    """Return diffusers' own class of a pipeline."""
    name = next(base.__name__ for base in pipeline_class.__mro__ if base.__name__ in family_names(pipeline_class))
    import diffusers

    return getattr(diffusers, name)


def family_names(pipeline_class: type) -> tuple[str, ...]:
    return family_of(pipeline_class).pipelines


@cache
def edits(host: type) -> type:
    """Return the class of pipelines of this host whose call edits."""
    family_of(host)  # refused now if no family reads it
    if issubclass(host, StableFlowPipeline):
        return host
    return type(f"StableFlow{host.__name__}", (StableFlowPipeline, host), {"__module__": __name__})
