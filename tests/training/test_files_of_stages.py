"""What stages leave on the disk: whole or not at all, and made again where it does not fit."""

import json
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from stableflow.errors import InputError, LoadError, OutputError
from stableflow.files import only_process
from stableflow.training import data as drawing
from stableflow.training import recipe as recipes
from stableflow.training.autoencoder import AutoencoderSettings, make_autoencoder
from stableflow.training.data import scene_data
from stableflow.training.flow import encode_all
from stableflow.training.loop import Checkpoint
from stableflow.training.parallel import World
from stableflow.training.recipe import RECIPES, run_stage

ALONE = World(0, 1, torch.device("cpu"))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_pictures_are_an_ordinary_array_and_are_drawn_once(tmp_path, monkeypatch):
    first = scene_data(tmp_path, count=3, size=16, workers=1)
    assert names(tmp_path) == ["train-16-3-tokens.npy", "train-16-3.npy"]
    np.save(tmp_path / "saved.npy", first.images)
    assert (tmp_path / "saved.npy").read_bytes() == (tmp_path / "train-16-3.npy").read_bytes()
    monkeypatch.setattr(drawing, "Pool", None)
    again = scene_data(tmp_path, count=3, size=16, workers=1)
    assert np.array_equal(first.images, again.images) and torch.equal(first.tokens, again.tokens)


@pytest.mark.parametrize("file", ["train-16-3.npy", "train-16-3-tokens.npy"])
def test_drawn_files_that_are_cut_off_are_drawn_again(tmp_path, file):
    whole = scene_data(tmp_path, count=3, size=16, workers=1)
    images, content = np.array(whole.images), (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(content[:-20])
    assert np.array_equal(scene_data(tmp_path, count=3, size=16, workers=1).images, images)
    assert (tmp_path / file).read_bytes() == content


def test_captions_of_another_world_are_drawn_again(tmp_path):
    two = scene_data(tmp_path, count=3, size=16, workers=1)
    three = scene_data(tmp_path, count=3, size=16, layers=3, workers=1)
    assert (two.tokens.shape, three.tokens.shape) == ((3, 5, 28), (3, 5, 40)) and three.layers == 3


def test_a_drawing_that_fails_leaves_nothing(tmp_path, monkeypatch):
    class Failing:
        def __init__(self, workers, initializer=None, initargs=()):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def imap(self, function, jobs, chunksize):
            yield function(jobs[0])
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(drawing, "Pool", Failing)
    with pytest.raises(OutputError, match="No space left"):
        scene_data(tmp_path, count=3, size=16, workers=1)
    assert names(tmp_path) == []


def test_latents_of_other_pictures_are_encoded_again(tmp_path):
    data = scene_data(tmp_path, count=3, size=32, workers=1)
    autoencoder = make_autoencoder(AutoencoderSettings(channels=(8, 8), latent_channels=4), 32).eval()
    path = tmp_path / "latents.pt"
    whole = encode_all(autoencoder, data, path, ALONE).clone()
    torch.save(whole[:2], path)
    assert torch.equal(encode_all(autoencoder, data, path, ALONE), whole) and len(whole) == 3
    assert not list(tmp_path.glob("*.part*"))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(LoadError, match=r"latents.pt is damaged.*Delete it"):
        encode_all(autoencoder, data, path, ALONE)


def checkpoint(folder, world, *, regroup=None, restored=None):
    return Checkpoint(folder / "stage", world, lambda: {"w": torch.ones(1)}, restored or (lambda kept: kept), regroup)


@pytest.mark.parametrize("together", [True, False])
def test_only_a_run_that_goes_on_from_other_processes_removes_their_checkpoints(tmp_path, together):
    for rank in range(2):
        torch.save({"step": 4, "state": {"w": torch.zeros(1)}}, tmp_path / f"stage.rank{rank}of2.pt")
    taken = []
    alone = checkpoint(tmp_path, ALONE, regroup=(lambda states: states) if together else None, restored=taken.append)
    assert alone.resume() == (4 if together else 0) and len(taken) == together
    alone.save(5)
    former = [] if together else ["stage.rank0of2.pt", "stage.rank1of2.pt"]
    assert names(tmp_path) == ["stage.rank0of1.pt", *former]


def test_a_share_that_is_missing_or_does_not_fit_is_named(tmp_path):
    torch.save({"step": 4, "state": {"w": torch.zeros(1)}}, tmp_path / "stage.rank0of2.pt")
    with pytest.raises(LoadError, match=r"rank1of2.pt is missing.*2 processes"):
        checkpoint(tmp_path, ALONE, regroup=lambda states: states).resume()
    torch.save({"step": 4, "state": {}}, tmp_path / "stage.rank1of2.pt")
    with pytest.raises(LoadError, match="no checkpoint of this stage"):
        checkpoint(tmp_path, ALONE, regroup=lambda states: [state["w"] for state in states]).resume()


@pytest.mark.parametrize("busy", [True, False])
def test_one_process_runs_a_stage(tmp_path, monkeypatch, busy):
    ran = []
    monkeypatch.setitem(recipes.STAGES, "draw", lambda folder, recipe, world: ran.append((folder, recipe)))
    held = only_process(tmp_path / "small" / ".draw.lock", "another") if busy else nullcontext()
    refused = pytest.raises(OutputError, match="runs the stage draw") if busy else nullcontext()
    with held, refused:
        run_stage("draw", model="small", folder=tmp_path / "small")
    assert ran == ([] if busy else [(tmp_path / "small", RECIPES["small"])])


def test_steps_of_the_flow_are_checked_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match="flow_steps .* at least 1, got 0"):
        run_stage("flow", folder=tmp_path / "o", flow_steps=0)
    assert names(tmp_path) == []


def test_an_encoder_that_does_not_tell_its_size_is_refused(tmp_path):
    for name in ("tiny", "clip", "dinov2"):
        (tmp_path / name).mkdir()
    (tmp_path / "clip" / "preprocessor_config.json").write_text(json.dumps({"size": 64}))
    with pytest.raises(LoadError, match="no crop_size.height"):
        recipes._earlier_encoder(recipes.Recipe(start=tmp_path), "clip")
