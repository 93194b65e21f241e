"""Several at once: threads wait for each other, and copies are models of their own."""

import copy
import pickle
import threading
import warnings

import pytest
import torch
from accelerate import cpu_offload
from tiny_flux import tiny_flux_pipeline

import stableflow as sf
from stableflow.errors import InterventionError
from stableflow.models.turns import Turn

PROMPT, EDIT = "a red dog standing on the grass", "a blue cat sitting on the snow"


def own_model():
    return sf.wrap(tiny_flux_pipeline(), name="random-flux")


def test_many_threads_draw_and_edit_what_one_alone_does():
    model = own_model()
    plain, editor = sf.StableFlow(model, layers=[]), sf.StableFlow(model, layers=[0, 3])
    source = editor.generate(PROMPT, seed=1, num_steps=2)
    calls = {
        "plain": lambda: plain.generate(PROMPT, seed=1, num_steps=2).images,
        "edit": lambda: editor.edit(source, EDIT).images,
        "bypass": lambda: bypassed(),
    }

    def bypassed():
        with model.attach(sf.Bypass([1])):
            return plain.generate(PROMPT, seed=1, num_steps=2).images

    wanted, found = {name: call() for name, call in calls.items()}, []
    threads = [
        threading.Thread(target=lambda name=name: found.append((name, calls[name]()))) for name in [*calls, *calls] * 2
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == len(threads) and all(torch.equal(images, wanted[name]) for name, images in found)


def test_a_thread_that_never_gets_its_turn_is_told_why():
    turn, refused = Turn(patience=0.05), []

    def other():
        try:
            with turn:
                pass
        except InterventionError as error:
            refused.append(str(error))

    with turn, turn:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert "another thread" in refused[0]
    with pickle.loads(pickle.dumps(turn)), copy.deepcopy(turn), turn:
        pass


def test_an_error_inside_gives_the_turn_back():
    model = own_model()
    with pytest.raises(KeyError), model.attach(sf.Bypass([1])):
        raise KeyError
    done = threading.Thread(target=lambda: sf.StableFlow(model, layers=[]).generate(PROMPT, num_steps=1))
    done.start()
    done.join(30)
    assert not done.is_alive()


def test_models_are_not_copied_in_halves():
    """A copy that shares its hooks with the first model would draw another picture; a copy of the pipeline does not."""
    model = own_model()
    draw = lambda m: sf.StableFlow(m, layers=[]).generate(PROMPT, seed=1, num_steps=1).images  # noqa: E731
    for copied in (model, sf.StableFlow(model, layers=[0])):
        for make in (copy.deepcopy, pickle.dumps):
            with pytest.raises(InterventionError, match="copied or pickled.*wrap"):
                make(copied)
    other, wanted = sf.wrap(copy.deepcopy(model.pipeline), name="other"), draw(model)
    with model.attach(sf.Bypass([1])):
        assert torch.equal(draw(other), wanted) and not torch.equal(draw(model), wanted)


@pytest.mark.parametrize("before", [True, False])
def test_layer_by_layer_offloading_is_refused_with_what_works(before):
    pipeline = tiny_flux_pipeline()
    model = None if before else sf.wrap(pipeline, name="x")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cpu_offload(pipeline.transformer, torch.device("cpu"))
    with pytest.raises(InterventionError, match="layer by layer.*enable_group_offload"):
        if model is None:
            sf.wrap(pipeline, name="x")
        else:
            with model.attach(sf.Bypass([1])):
                pass
