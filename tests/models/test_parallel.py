"""A pass spread over two processes by diffusers' context parallelism: they edit as one process does."""

import multiprocessing
import os
import sys

import diffusers
import pytest
import torch
from tiny_flux import tiny_flux_pipeline

import stableflow as sf
from stableflow.errors import InterventionError
from stableflow.interventions import Bypass

SOURCE, EDIT, STEPS = "a red dog on the grass", "a blue cat on the grass", 3
BOX = sf.Region.box(4, 4, 8, 8, (16, 16))


def edits(model):
    """Edits with two layers injected everywhere, with all outside a region, with none; and a layer bypassed."""
    editor = sf.StableFlow(model, layers=[0, 3])
    source = editor.generate(SOURCE, seed=1, num_steps=STEPS)
    found = [source.images, editor.edit(source, [EDIT, SOURCE]).latents]
    found.append(sf.StableFlow(model, layers=[]).edit(source, [EDIT]).latents)
    found.append(sf.StableFlow(model, layers="all", compute="all").edit(source, [EDIT], region=BOX).latents)
    with model.attach(Bypass([1])):
        found.append(sf.StableFlow(model, layers=[2]).generate(SOURCE, seed=1, num_steps=1).latents)
    return found, source.store.num_bytes


def in_process(rank, port, queue):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    torch.accelerator.device_count = lambda: 1  # diffusers divides by it
    pipeline = tiny_flux_pipeline()
    pipeline.transformer.enable_parallelism(config=diffusers.ContextParallelConfig(ulysses_degree=2))
    model = sf.wrap(pipeline, name="random-flux")
    found, kept = edits(model)
    editor = sf.StableFlow(model, layers=[0])
    with pytest.raises(InterventionError, match="context parallelism"):
        sf.attention(editor, editor.generate(SOURCE, seed=1, num_steps=1), [EDIT], points=[(1, 1)])
    queue.put((rank, [tensor.numpy() for tensor in found], kept))
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked, which is Linux's way")
def test_two_processes_edit_as_one_and_each_keeps_half_of_the_keys_and_values():
    alone, kept = edits(sf.wrap(tiny_flux_pipeline(), name="random-flux"))
    assert (alone[1][:1] - alone[2]).abs().max() > 0.01, "injection does something here"
    forking = multiprocessing.get_context("fork")
    queue = forking.Queue()
    port = 20_000 + os.getpid() % 20_000
    processes = [forking.Process(target=in_process, args=(rank, port, queue), daemon=True) for rank in range(2)]
    for process in processes:
        process.start()
    answers = [queue.get(timeout=240) for _ in processes]
    for process in processes:
        process.join(30)
    for _, found, bytes_there in answers:
        assert bytes_there * 2 == kept
        for there, here in zip(found, alone, strict=True):
            assert (torch.from_numpy(there) - here).abs().max() < 1e-4 * max(1.0, float(here.abs().max()))
