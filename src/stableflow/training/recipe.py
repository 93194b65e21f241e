"""The recipes: their stages in order, with the sizes of each bundled model."""

import dataclasses
import logging
import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from diffusers import AutoencoderKL

from stableflow.checks import check_count
from stableflow.errors import LoadError, unknown_name
from stableflow.files import check_writable, only_process
from stableflow.models.devices import choose_device
from stableflow.reading import read_json
from stableflow.training.attention import PlainAttention
from stableflow.training.autoencoder import AutoencoderSettings, reconstruction_psnr, train_autoencoder
from stableflow.training.classifier import ClassifierSettings, ceiling, train_classifier
from stableflow.training.clip import ClipSettings, train_clip, zero_shot_accuracy
from stableflow.training.data import SceneData, scene_data
from stableflow.training.decoder import DecoderSettings, train_decoder
from stableflow.training.dino import DinoSettings, probe_accuracy, train_dino
from stableflow.training.export import export_pipeline
from stableflow.training.flow import (
    FlowData,
    FlowSettings,
    averaged_weights,
    distil_guidance,
    encode_all,
    train_flow,
)
from stableflow.training.measure import measure
from stableflow.training.network import Network, NetworkSettings
from stableflow.training.parallel import World, join_world, wait_for_all

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """Sizes and settings of every stage.

    Args:
        start: A bundle's folder (tiny, clip, dinov2) whose weights training goes on from; none: from nothing.
        layers: Of the world that is drawn.
    """

    start: Path | None = None
    size: int = 64
    layers: int = 2
    scenes: int = 80_000
    validation_scenes: int = 1_000
    measured_captions: int = 512
    autoencoder: AutoencoderSettings = AutoencoderSettings()
    decoder: DecoderSettings = DecoderSettings()
    flow: FlowSettings = FlowSettings()
    classifier: ClassifierSettings = ClassifierSettings()
    clip: ClipSettings = ClipSettings()
    dino: DinoSettings = DinoSettings()


BUNDLE = Path(__file__).parents[1] / "bundled"
RECIPES = {
    "tiny": Recipe(),
    "small": Recipe(
        start=BUNDLE,
        size=128,
        layers=3,
        scenes=40_000,
        autoencoder=AutoencoderSettings(num_steps=0),  # as it is, it holds the larger pictures better than its own
        flow=FlowSettings(
            network=NetworkSettings(scene_layers=3),
            num_steps=8_000,
            batch=24,
            peak=1e-3,
            decay_from=0.6,
            shift=2.0,
            checkpoint_every=100,
        ),
        classifier=ClassifierSettings(size=128, channels=(24, 48, 64, 96, 128), num_steps=1500, batch=64),
    ),
}
"""By the bundled model's name. `small` has the world's third layer, drawn at twice the size, and starts from `tiny`."""


def _data(folder: Path, recipe: Recipe, *, validation: bool = False) -> SceneData:
    count = recipe.validation_scenes if validation else recipe.scenes
    return scene_data(folder / "data", count=count, size=recipe.size, layers=recipe.layers, validation=validation)


def _earlier(recipe: Recipe, part: str) -> Path | None:
    return recipe.start / part if recipe.start is not None else None


def _earlier_encoder(recipe: Recipe, part: str) -> Path | None:
    """None too for an encoder of pictures of another size, whose patches have other positions."""
    folder = _earlier(recipe, part)
    if folder is None:
        return None
    path = folder / "preprocessor_config.json"
    try:
        seen = read_json(path)["crop_size"]["height"]
    except (KeyError, TypeError) as error:
        raise LoadError(f"{path} does not say how large the encoder's pictures are: no crop_size.height.") from error
    return folder if seen == recipe.size else None


def draw(folder: Path, recipe: Recipe, world: World) -> None:
    """Draw all scenes."""
    for validation in (True, False):
        _data(folder, recipe, validation=validation)


def autoencoder(folder: Path, recipe: Recipe, world: World) -> None:
    """Train the autoencoder and measure it on held-out renders."""
    model = train_autoencoder(
        folder, _data(folder, recipe), recipe.autoencoder, world, start=_earlier(recipe, "tiny/vae")
    )
    if world.leads:
        psnr = reconstruction_psnr(model.float(), _data(folder, recipe, validation=True))
        log.info("autoencoder: %.2f dB on held-out renders", psnr)
    wait_for_all(world)


def decoder(folder: Path, recipe: Recipe, world: World) -> None:
    """Train the decoder on with the encoder frozen, and measure again."""
    model = train_decoder(folder, _data(folder, recipe), recipe.decoder, world)
    if world.leads:
        psnr = reconstruction_psnr(model.float(), _data(folder, recipe, validation=True))
        log.info("autoencoder: %.2f dB on held-out renders", psnr)
    wait_for_all(world)


def _flow_data(folder: Path, recipe: Recipe, world: World) -> FlowData:
    data, model = _data(folder, recipe), AutoencoderKL.from_pretrained(folder / "vae")
    path = folder / "data" / "latents.pt"
    return FlowData(encode_all(model.eval(), data, path, world), data.tokens, data.layers)


def flow(folder: Path, recipe: Recipe, world: World) -> None:
    """Train transformer and text encoders on the autoencoder's latents."""
    train_flow(folder, _flow_data(folder, recipe, world), recipe.flow, world, start=_earlier(recipe, "tiny"))


def distil(folder: Path, recipe: Recipe, world: World) -> None:
    """Distil classifier-free guidance."""
    teacher = _averaged(folder, "flow", recipe, world)
    teacher.use_attention(PlainAttention)
    distil_guidance(folder, teacher, _flow_data(folder, recipe, world), recipe.flow, world)


def _averaged(folder: Path, stage: str, recipe: Recipe, world: World) -> Network:
    """The network of a stage's last checkpoint, however many steps it has had."""
    network = Network(recipe.flow.network).to(world.device)
    network.load_state_dict(averaged_weights(folder, stage, world))
    return network.eval()


def classifier(folder: Path, recipe: Recipe, world: World) -> None:
    """Train the attribute classifier and measure its ceiling on held-out renders."""
    model = train_classifier(folder, _data(folder, recipe), recipe.classifier, world)
    log.info("classifier on held-out renders: %s", ceiling(model, _data(folder, recipe, validation=True)))


def clip(folder: Path, recipe: Recipe, world: World) -> None:
    """Train the CLIP and measure it on held-out renders."""
    model = train_clip(folder, _data(folder, recipe), recipe.clip, world, start=_earlier_encoder(recipe, "clip"))
    log.info("clip, zero shot: %s", zero_shot_accuracy(model, _data(folder, recipe, validation=True)))


def dinov2(folder: Path, recipe: Recipe, world: World) -> None:
    """Train the DINOv2-shaped encoder and measure its heads on held-out renders."""
    model = train_dino(folder, _data(folder, recipe), recipe.dino, world, start=_earlier_encoder(recipe, "dinov2"))
    log.info("dinov2, heads: %s", probe_accuracy(model, _data(folder, recipe, validation=True)))


def export(folder: Path, recipe: Recipe, world: World) -> None:
    """Write the distilled network, and its teacher, as pipeline folders."""
    for stage, name in (("distil", "pipeline"), ("flow", "teacher")):
        network = _averaged(folder, stage, recipe, world)
        autoencoder = AutoencoderKL.from_pretrained(folder / "vae-final")
        export_pipeline(network, autoencoder, folder / name, shift=recipe.flow.shift)


def measure_all(folder: Path, recipe: Recipe, world: World) -> None:
    """Measure the exported model."""
    measure(folder, captions=recipe.measured_captions, layers=recipe.layers)


Stage = Callable[[Path, Recipe, World], None]
STAGES: dict[str, Stage] = {
    "draw": draw,
    "autoencoder": autoencoder,
    "decoder": decoder,
    "flow": flow,
    "distil": distil,
    "classifier": classifier,
    "clip": clip,
    "dinov2": dinov2,
    "export": export,
    "measure": measure_all,
}


def run_stage(
    stage: str,
    *,
    model: str = "tiny",
    folder: Path | None = None,
    device: str = "cpu",
    start: Path | None = None,
    flow_steps: int | None = None,
) -> None:
    """Run or resume one stage of a bundled model's recipe.

    Args:
        folder: Of everything the stage makes, and of all it needs but the bundle `start`; runs/<model> when None.
        start: A bundle to go on from, in place of the recipe's.
        flow_steps: Of the stage `flow`, in place of the recipe's. A run that is resumed may be given more, as long as
            its learning rate has not begun to fall.
    """
    if stage not in STAGES:
        raise unknown_name("stage", stage, STAGES)
    if model not in RECIPES:
        raise unknown_name("recipe", model, RECIPES)
    recipe, folder = RECIPES[model], folder or Path("runs") / model
    if flow_steps is not None:
        check_count("flow_steps (--steps)", flow_steps)
        recipe = dataclasses.replace(recipe, flow=dataclasses.replace(recipe.flow, num_steps=flow_steps))
    if start is not None:
        missing = [name for name in ("tiny", "clip", "dinov2") if not (start / name).is_dir()]
        if missing:
            raise LoadError(f"{start} is no bundle: {', '.join(missing)} missing. Give a folder that holds all three.")
        recipe = dataclasses.replace(recipe, start=start)
    device = choose_device(device)
    alone = (
        only_process(folder / f".{stage}.lock", f"the stage {stage}") if int(os.environ.get("RANK", "0")) == 0 else None
    )
    with alone or nullcontext():
        check_writable(folder)
        STAGES[stage](folder, recipe, join_world(device))
