"""How keys and values are kept: precision, bytes, and their way through main memory."""

import gc
import tempfile

import pytest
import torch

from stableflow.editing.memory import choose_memory
from stableflow.errors import InputError
from stableflow.interventions import KVStore
from stableflow.interventions.address import Address
from stableflow.interventions.compress import from_fp8, to_fp8

TOKENS, DIM, TIMES = 16, 32, (1.0, 0.7, 0.3)


def filled(*, dtype=torch.float32, **settings):
    store, made = KVStore(**settings), {}
    generator = torch.Generator().manual_seed(0)
    for t in reversed(TIMES):  # as an inversion puts them
        for layer in (0, 3):
            for part in ("key", "value"):
                address = Address(t, 0, layer, part)
                made[address] = torch.randn(1, TOKENS, DIM, generator=generator).to(dtype)
                store.put(address, made[address])
    return store, made


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_fp8_keeps_four_bits_of_every_number(dtype, scale):
    features = (torch.randn(2, TOKENS, DIM, generator=torch.Generator().manual_seed(1)) * scale).to(dtype)
    features[0, 0] = 0
    back = from_fp8(*to_fp8(features), dtype)
    large = features.abs() > features.abs().amax(-1, keepdim=True) / 100
    assert back.dtype == dtype and torch.equal(back[0, 0], features[0, 0])
    assert ((back - features).abs() <= features.abs() / 14)[large].all()
    assert (back - features).abs().max() <= features.abs().max() / 14


def test_fp8_takes_a_byte_a_number_and_four_a_token():
    exact, half = filled(dtype=torch.bfloat16)[0], filled(dtype=torch.bfloat16, precision="fp8")[0]
    entries = len(exact.entries)
    assert exact.num_bytes == entries * TOKENS * DIM * 2
    assert half.num_bytes == entries * TOKENS * (DIM + 4)


def test_a_copy_is_kept_and_no_more_than_it():
    store, address = KVStore(), Address(1.0, 0, 0, "key")
    whole = torch.randn(3, 2 * TOKENS, DIM)
    store.put(address, whole[:1, TOKENS:])
    before = whole[:1, TOKENS:].clone()
    whole.zero_()
    kept = store.entries[address]
    assert torch.equal(kept, before) and kept.untyped_storage().nbytes() == TOKENS * DIM * 4


@pytest.mark.parametrize("precision", ["exact", "fp8"])
def test_prefetched_entries_are_the_kept_ones(precision):
    """In the order of edits, with a layer left out, a pass left out, and an entry asked for twice."""
    store, made = filled(device="cpu", precision=precision)
    plain = {address: store.get(address, like) for address, like in made.items()}
    order = sorted(made, key=lambda address: -address.t)
    for wanted in (order, [a for a in order if a.layer == 3], [a for a in order if a.t != 0.7], order[:2] * 2):
        with store.prefetching(torch.device("cpu")):
            assert all(torch.equal(store.get(address, made[address]), plain[address]) for address in wanted)
    if precision == "exact":
        assert all(torch.equal(plain[address], made[address]) for address in made)


def test_an_unfinished_edit_leaves_the_store_usable():
    store, made = filled(device="cpu")
    first = next(iter(made))
    with pytest.raises(RuntimeError), store.prefetching(torch.device("cpu")):
        store.get(first, made[first])
        raise RuntimeError
    assert torch.equal(store.get(first, made[first]), made[first])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_prefetching_to_an_accelerator():
    device = torch.device("cuda")
    store, made = KVStore("cpu"), filled()[1]
    for address, features in made.items():
        store.put(address, features.to(device))
    assert all(entry.is_pinned() for entry in store.entries.values())
    with store.prefetching(device):
        for address in sorted(made, key=lambda address: -address.t):
            assert torch.equal(store.get(address, made[address].to(device)).cpu(), made[address])


@pytest.mark.parametrize("precision", ["exact", "fp8"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_disk_they_are_the_same_and_leave_no_file(precision, dtype, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (memory, made), (disk, _) = (filled(dtype=dtype, precision=precision, device=device) for device in (None, "disk"))
    assert disk.place == "disk" and disk.num_bytes == memory.num_bytes
    assert not [path for path in tmp_path.rglob("*") if path.is_file()], "nothing is left by a process that is killed"
    some = torch.tensor([3, 7, 12])
    with disk.prefetching(torch.device("cpu")):
        for address, like in made.items():
            assert torch.equal(disk.get(address, like), memory.get(address, like))
            part = disk.get_some(address, some, of=TOKENS, like=like)
            assert torch.equal(part, memory.get(address, like)[:, some]) and part.dtype == dtype
    del disk
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_told_beforehand():
    with pytest.raises(InputError, match="Set TMPDIR to a larger disk"):
        choose_memory("disk", 2**62, torch.device("cpu"))
