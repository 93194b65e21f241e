"""What every model family must pass, measured: `python tests/models/conformance.py` writes the figures into the README.

Every property is a function from a tiny family (tests/families) to the largest difference that it found, which must not
exceed the property's bound, or None where the family does not offer it; what is not a difference is asserted. Bounds
other than 0 are float32 rounding: batches of another size, and another order of the same sums.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

ROOT = Path(__file__).parents[2]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "tests"))

from families import FAMILIES
from families.base import TinyFamily

import stableflow as sf
from stableflow.interventions import Bypass, CaptureAttention, InjectKV, KVStore, LeaveOut, RecordKV, ShareKV
from stableflow.interventions.blend import Blend
from stableflow.models.base import Forward, ProjectionHook, ShowsAttention, TokenLayout
from stableflow.region import Region

JSON, README = ROOT / "docs" / "conformance.json", ROOT / "README.md"
BEGIN, END = "<!-- conformance: begin -->\n", "<!-- conformance: end -->"
ROUNDING = 1e-4
PROMPTS = ["a red dog", "a blue cat on the grass"]
T = 0.8


@dataclass(frozen=True)
class Property:
    """A column of the table."""

    title: str
    bound: float
    measure: Callable[[TinyFamily], float | None]


PROPERTIES: dict[str, Property] = {}


def measures(title: str, bound: float = 0.0):
    def register(measure: Callable[[TinyFamily], float | None]):
        PROPERTIES[measure.__name__] = Property(title, bound, measure)
        return measure

    return register


@cache
def pipeline_of(family: TinyFamily):
    """Shared by all measurements, which must leave it as they found it."""
    return family.make()


def model_of(family: TinyFamily, text_length: int | None = None, pipeline=None):
    pipeline = pipeline_of(family) if pipeline is None else pipeline
    return sf.wrap(pipeline, name=family.name, max_sequence_length=text_length or family.text_lengths[0])


def every(model) -> list[int]:
    return list(range(len(model.layers)))


def noise(model, size: tuple[int, int], rows: int = 1, seed: int = 0) -> Tensor:
    return torch.randn(rows, *model.latent_shape(*size), generator=torch.Generator().manual_seed(seed))


def square(family: TinyFamily) -> tuple[int, int]:
    return family.size, family.size


def velocity(model, family, latents, prompts, *interventions, t=T) -> Tensor:
    conditioning = prompts if isinstance(prompts, sf.Conditioning) else model.encode_prompt(prompts)
    with model.attach(*interventions) if interventions else nullcontext():
        return model.velocity(latents, t, conditioning, guidance_scale=family.guided[0])


def row(conditioning: sf.Conditioning, index: int) -> sf.Conditioning:
    tensors = {name: tensor[index : index + 1] for name, tensor in conditioning.tensors.items()}
    return sf.Conditioning(conditioning.prompts[index : index + 1], tensors)


def gap(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape and a.isfinite().all() and b.isfinite().all()
    return float((a - b).abs().max())


def sample_with_diffusers(family: TinyFamily, pipeline, latents, size, num_steps, text_length, arguments) -> Tensor:
    """The final latents that the family's own pipeline call arrives at."""
    seen = {}

    def keep(pipeline, step, timestep, tensors):
        seen.update(tensors)
        return tensors

    pipeline(
        prompt=PROMPTS[1],
        latents=family.pack(pipeline, latents),
        height=size[0],
        width=size[1],
        num_inference_steps=num_steps,
        max_sequence_length=text_length,
        callback_on_step_end=keep,
        output_type="latent",
        **family.call(*size),
        **arguments,
    )
    return family.unpack(pipeline, seen["latents"], tuple(latents.shape)).float()


@measures("sampling = diffusers")
def sampling(family: TinyFamily) -> float:
    """Prompt to final latents, guided and not, square and not, at two text lengths; the time grid too."""
    pipeline, worst = pipeline_of(family), 0.0
    plans = [
        (square(family), 3, family.text_lengths[0], family.guided),
        ((family.size, 2 * family.size), 2, family.text_lengths[1], family.guided),
        ((2 * family.size, family.size), 2, family.text_lengths[0], family.unguided),
    ]
    for size, num_steps, text_length, (scale, arguments) in plans:
        model = model_of(family, text_length)
        latents = noise(model, size)
        expected = sample_with_diffusers(family, pipeline, latents, size, num_steps, text_length, arguments)
        source = sf.StableFlow(model, layers=[]).generate(
            PROMPTS[1], latents=latents, num_steps=num_steps, guidance_scale=scale, height=size[0], width=size[1]
        )
        assert source.fingerprint.times == tuple(pipeline.scheduler.sigmas.tolist())
        worst = max(worst, gap(source.latents, expected))
    return worst


@measures("picture of a seed = diffusers")
def picture(family: TinyFamily) -> float:
    """The pipeline's own noise and decoder."""
    scale, arguments = family.guided
    expected = pipeline_of(family)(
        prompt=PROMPTS[0],
        height=family.size,
        width=family.size,
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(7),
        max_sequence_length=family.text_lengths[0],
        output_type="pt",
        **family.call(*square(family)),
        **arguments,
    ).images
    source = sf.StableFlow(model_of(family), layers=[]).generate(
        PROMPTS[0], seed=7, num_steps=2, guidance_scale=scale, height=family.size, width=family.size
    )
    return gap(source.images, expected)


@measures("encoding", ROUNDING)
def encoding(family: TinyFamily) -> float:
    """Encoding then decoding is the autoencoder's own way there and back, by its mean."""
    model = model_of(family)
    images = torch.rand(2, 3, family.size, 2 * family.size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = family.vae_round_trip(pipeline_of(family), images * 2 - 1) / 2 + 0.5
    latents = model.encode_image(images)
    assert latents.shape[1:] == model.latent_shape(family.size, 2 * family.size)
    assert torch.equal(latents, model.encode_image(images)), "no sampling"
    return gap(model.decode_latents(latents), expected.clamp(0, 1))


@measures("own K, V injected")
def own(family: TinyFamily) -> float:
    """Recorded and injected into the same row again, in all layers."""
    model, store = model_of(family), KVStore()
    latents = noise(model, square(family))
    recorded = velocity(model, family, latents, PROMPTS[:1], RecordKV(every(model), store))
    injected = velocity(model, family, latents, PROMPTS[:1], InjectKV(every(model), store))
    return max(gap(injected, recorded), gap(recorded, velocity(model, family, latents, PROMPTS[:1])))


@measures("share = record + inject", ROUNDING)
def share(family: TinyFamily) -> float:
    """In each layer and in all; injecting must move the edit and leave the source's row alone, bit for bit."""
    model, worst = model_of(family), 0.0
    latents, conditioning = noise(model, square(family), rows=2), model.encode_prompt(PROMPTS)
    plain = velocity(model, family, latents, conditioning)
    for layers in [*([layer] for layer in every(model)), every(model)]:
        store = KVStore()
        shared = velocity(model, family, latents, conditioning, ShareKV(layers))
        velocity(model, family, latents[:1], row(conditioning, 0), RecordKV(layers, store))
        injected = velocity(model, family, latents[1:], row(conditioning, 1), InjectKV(layers, store))
        assert torch.equal(shared[0], plain[0])
        assert gap(shared[1], plain[1]) > 1e-3, f"injecting in {layers} does nothing"
        worst = max(worst, gap(shared[1:], injected))
    return worst


class _Identity(nn.Module):
    """Returns some of its inputs, by keyword or position: one alone, several as a tuple."""

    def __init__(self, names: tuple[str | int, ...]):
        super().__init__()
        self._names = names

    def forward(self, *args, **kwargs):
        outputs = tuple(args[name] if isinstance(name, int) else kwargs[name] for name in self._names)
        return outputs if len(outputs) > 1 else outputs[0]


@measures("bypass = identity block")
def bypass(family: TinyFamily) -> float:
    """Every layer; and what takes the place of the outputs has their shapes, so the streams are in the right order."""
    model, worst = model_of(family), 0.0
    latents, conditioning = noise(model, square(family)), model.encode_prompt(PROMPTS[:1])
    plain = velocity(model, family, latents, conditioning)
    for layer in model.layers:
        shapes = {}
        identity = _Identity(family.block_inputs[layer.kind])

        def compare(module, args, kwargs, output, identity=identity, shapes=shapes):
            shapes["expected"] = _shapes(output)
            shapes["identity"] = _shapes(identity(*args, **kwargs))

        handle = layer.block.register_forward_hook(compare, with_kwargs=True)
        bypassed = velocity(model, family, latents, conditioning, Bypass([layer.index]))
        handle.remove()
        known = [(a, b) for a, b in zip(shapes["expected"], shapes["identity"], strict=True) if a is not None]
        assert all(a == b for a, b in known) and len({a for a, _ in known}) == len(known)
        with _replaced(pipeline_of(family).transformer, layer.block, identity):
            worst = max(worst, gap(bypassed, velocity(model, family, latents, conditioning)))
        assert gap(bypassed, plain) > 1e-3, f"bypassing {layer.index} does nothing"
    return worst


def _shapes(output) -> list[tuple[int, ...] | None]:
    outputs = output if isinstance(output, tuple) else (output,)
    return [None if tensor is None else tuple(tensor.shape) for tensor in outputs]


class _replaced:
    def __init__(self, model: nn.Module, block: nn.Module, other: nn.Module):
        self._parent, self._name = next(
            (parent, name) for parent in model.modules() for name, child in parent.named_children() if child is block
        )
        self._block, self._other = block, other

    def __enter__(self):
        setattr(self._parent, self._name, self._other)

    def __exit__(self, *exception):
        setattr(self._parent, self._name, self._block)


class Watch:
    """Keeps what the key hooks of one layer see, by branch and attention."""

    def __init__(self, layer: int, part: str = "key"):
        self.layer, self.part = layer, part
        self.seen: dict[tuple[str, int], Tensor] = {}
        self.calls = 0

    def hooks(self, layers):
        return [ProjectionHook(layers[self.layer], self.part, self._keep)]

    def _keep(self, forward: Forward, features: Tensor) -> None:
        self.calls += 1
        self.seen[forward.branch, forward.attention] = features.clone()


@measures("hooks fire once")
def firing(family: TinyFamily) -> float:
    """Once a layer, part, attention and branch of a guided pass; each branch sees its own rows and its own prompt."""
    model = model_of(family)
    latents, conditioning = noise(model, square(family), rows=2), model.encode_prompt(PROMPTS)
    branches = 2 if any(name.startswith("negative_") for name in conditioning.tensors) else 1
    worst = 0
    for layer in every(model):
        watches = [Watch(layer, part) for part in ("key", "value")]
        velocity(model, family, latents, conditioning, *watches)
        for watch in watches:
            attentions = {attention for _, attention in watch.seen}
            assert len(watch.seen) == branches * len(attentions)
            assert all(len(features) == 2 for features in watch.seen.values())
            worst = max(worst, abs(watch.calls - len(watch.seen)))
        for branch, prefix in [("conditional", ""), ("unconditional", "negative_")] if branches == 2 else []:
            alone = Watch(layer)
            given = {name: tensor for name, tensor in conditioning.tensors.items() if not name.startswith("negative_")}
            own = sf.Conditioning(tuple(PROMPTS), {name: conditioning.tensors[prefix + name] for name in given})
            with model.attach(alone):
                model.velocity(latents, T, own, guidance_scale=family.unguided[0])
            for attention in {attention for _, attention in alone.seen}:
                key = alone.seen["conditional", attention]
                assert gap(watches[0].seen[branch, attention], key) < ROUNDING, "a branch sees its own prompt"
    return float(worst)


@measures("token layout")
def layout(family: TinyFamily) -> float:
    """What hooks see are the image tokens, all of them, in their order, and nothing else, at two text lengths.

    Layers before the one that is looked at are bypassed, so nothing mixes there. Another text must then leave every row
    as it was; another latent pixel must move the row of its token most.
    """
    worst = 0.0
    for text_length, size in zip(family.text_lengths, [square(family), (family.size, 2 * family.size)]):
        model = model_of(family, text_length)
        latents, conditioning = noise(model, size), model.encode_prompt(PROMPTS[:1])
        _, latent_height, latent_width = model.latent_shape(*size)
        rows, columns = size[0] // model.pixel_multiple, size[1] // model.pixel_multiple
        other = sf.Conditioning(
            conditioning.prompts,
            {
                name: tensor
                if not tensor.is_floating_point() or name.endswith("_mask") or tensor.ndim != 3
                else -tensor
                for name, tensor in conditioning.tensors.items()
            },
        )
        tokens = [0, rows * columns // 2 + 1, rows * columns - 1]
        moved = latents.repeat(len(tokens), 1, 1, 1)
        for i, token in enumerate(tokens):
            moved[i, :, token // columns * latent_height // rows, token % columns * latent_width // columns] += 3.0
        repeated = sf.Conditioning.concat([conditioning] * len(tokens))
        for layer in every(model):
            before = Bypass(range(layer))
            keys = _keys(model, family, latents, conditioning, layer, before)
            with_other = _keys(model, family, latents, other, layer, before)
            with_moved = _keys(model, family, moved, repeated, layer, before)
            for place, key in keys.items():
                assert key.shape[:2] == (1, rows * columns)
                worst = max(worst, gap(with_other[place], key))
                change = (with_moved[place] - key).abs().amax(-1)
                assert change.argmax(-1).tolist() == tokens and change.amax() > 1e-2, f"layer {layer}"
    return worst


def _keys(model, family, latents, conditioning, layer, before) -> dict[tuple[str, int], Tensor]:
    watch = Watch(layer)
    velocity(model, family, latents, conditioning, before, watch)
    return watch.seen


@measures("injection leaves no gap", ROUNDING)
def sealed(family: TinyFamily) -> float:
    """With all other layers bypassed and the source's keys and values injected, an image token's change stays its own.

    Attention is the one way between image tokens, so a key, a value or a whole attention that injection forgot would
    carry the change to the others, as it does without injection.
    """
    model, worst = model_of(family), 0.0
    conditioning = model.encode_prompt(PROMPTS[:1])
    source, edit = noise(model, square(family)), noise(model, square(family), seed=1)
    moved, elsewhere = edit.clone(), torch.ones_like(edit, dtype=torch.bool)
    side = edit.shape[-1] * model.pixel_multiple // family.size
    moved[..., side : 2 * side, :side] += 3.0
    elsewhere[..., side : 2 * side, :side] = False
    with ExitStack() as stack:
        for block in family.mixers(pipeline_of(family).transformer):
            stack.enter_context(_replaced(pipeline_of(family).transformer, block, _Identity((0,))))
        for layer in every(model):
            rest = Bypass([other for other in every(model) if other != layer])
            store = KVStore()
            velocity(model, family, source, conditioning, rest, RecordKV([layer], store))
            for interventions in ([rest], [rest, InjectKV([layer], store)]):
                both = [velocity(model, family, latents, conditioning, *interventions) for latents in (edit, moved)]
                change = gap(both[0][elsewhere], both[1][elsewhere])
                assert len(interventions) == 2 or change > 1e-3, "without injection a change spreads"
            worst = max(worst, change)
    return worst


@measures("a region alone = all injected outside", ROUNDING)
def region(family: TinyFamily) -> float | None:
    """Every guidance, two prompts of two lengths; where layers alone mix tokens, whatever latents lie outside."""
    model, size = model_of(family), square(family)
    if any(blocks.outside is None for blocks in model.family.blocks):
        return None
    box = Region.box(size[1] // 4, 0, size[1] // 2, size[0] // 3, size=size).whole(model.pixel_multiple)
    source, other = noise(model, size), noise(model, size, rows=2, seed=1)
    free, worst = box.latents(source.shape[-2:]), 0.0
    for scale in (family.unguided[0], family.guided[0]):
        store = KVStore()
        with model.attach(RecordKV(every(model), store)):
            model.velocity(source, T, model.encode_prompt(PROMPTS[:1]), guidance_scale=scale)
        edits, prompts = torch.lerp(source, other, free), model.encode_prompt(PROMPTS)
        with model.attach(InjectKV(every(model), store, Blend(region=~box))):
            whole = model.velocity(edits, T, prompts, guidance_scale=scale)
        with model.attach(LeaveOut(box, store)):
            part = model.velocity(edits if model.family.refines else other, T, prompts, guidance_scale=scale)
        assert bool(part.isfinite().all()) and gap(whole * (1 - free), part * (1 - free)) > 1e-3, "it is left out"
        worst = max(worst, gap(whole * free, part * free))
    return worst


@measures("detach")
def detach(family: TinyFamily) -> float:
    """After an error inside the pass nothing is left behind."""
    model, transformer = model_of(family), pipeline_of(family).transformer
    latents, conditioning = noise(model, square(family)), model.encode_prompt(PROMPTS[:1])
    plain = velocity(model, family, latents, conditioning)

    def state():
        return [
            (name, id(module), id(getattr(module, "processor", None)), len(module._forward_hooks), module.forward)
            for name, module in transformer.named_modules()
        ]

    class Failing:
        def hooks(self, layers):
            def fail(forward, features):
                raise KeyboardInterrupt

            return [ProjectionHook(layers[-1], "value", fail)]

    before = state()
    try:
        velocity(model, family, latents, conditioning, RecordKV(every(model), KVStore()), Bypass([1]), Failing())
    except KeyboardInterrupt:
        pass
    else:
        raise AssertionError("the failing hook did not fire")
    assert state() == before
    return gap(velocity(model, family, latents, conditioning), plain)


@measures("row alone = row in a batch", ROUNDING)
def batch(family: TinyFamily) -> float:
    """Prompts of two lengths, and a guidance scale for each row."""
    model, worst = model_of(family), 0.0
    latents, conditioning = noise(model, square(family), rows=2), model.encode_prompt(PROMPTS)
    scales = [family.unguided[0], family.guided[0]]
    scales = None if None in scales else scales
    both = model.velocity(latents, T, conditioning, guidance_scale=scales)
    for index, prompt in enumerate(PROMPTS):
        alone = model.velocity(
            latents[index : index + 1],
            T,
            model.encode_prompt([prompt]),
            guidance_scale=None if scales is None else scales[index],
        )
        worst = max(worst, gap(both[index : index + 1], alone))
    return worst


def _picture(family: TinyFamily) -> Tensor:
    y, x = torch.meshgrid(torch.linspace(0, 1, family.size), torch.linspace(0, 1, 2 * family.size), indexing="ij")
    return torch.stack([x, y, (x + y) / 2])


@cache
def _sources(family: TinyFamily, keep: str) -> list[tuple[sf.StableFlow, sf.Source]]:
    """A drawn and a real source; the real one is not square and not guided, its edits are."""
    editor = sf.StableFlow(model_of(family), layers=[0, len(model_of(family).layers) - 1], kv_memory=keep)
    drawn = editor.generate(PROMPTS[0], seed=1, num_steps=3, height=family.size, width=family.size)
    return [(editor, drawn), (editor, editor.invert(_picture(family), PROMPTS[0], num_steps=3))]


@contextmanager
def _kernel_calls(model) -> Iterator[dict[int, tuple[Tensor, Tensor]]]:
    """Keep the values that the attention kernel got and what it gave, by layer; of two attentions the joint one."""
    kernel, inside, calls = nn.functional.scaled_dot_product_attention, [], {}

    def keeping(query, key, value, *args, **kwargs):
        output = kernel(query, key, value, *args, **kwargs)
        if inside:
            calls.setdefault(inside[-1], (value, output))
        return output

    with ExitStack() as stack:
        for layer in model.layers:
            enter = layer.block.register_forward_pre_hook(lambda module, args, index=layer.index: inside.append(index))
            stack.callback(enter.remove)
        stack.callback(setattr, nn.functional, "scaled_dot_product_attention", kernel)
        nn.functional.scaled_dot_product_attention = keeping
        yield calls


@measures("attention = the kernel's", ROUNDING)
def attention(family: TinyFamily) -> float | None:
    """Captured rows times the values are what the kernel gave for those queries, relative to the largest of it.

    Guided, with injection that is attached before capture and after it, prompts of two lengths; watching must not
    change the velocity. None where the family shows no attention.
    """
    model, worst = model_of(family), 0.0
    if not isinstance(model, ShowsAttention):
        return None
    size = (family.size, 2 * family.size)
    tokens = [0, size[0] * size[1] // model.pixel_multiple**2 - 2]
    points = [(0, 0), (size[1] - model.pixel_multiple - 1, size[0] - 1)]
    latents, conditioning = noise(model, size, rows=2), model.encode_prompt(PROMPTS)
    inject = ShareKV(every(model)[::2])
    plain = velocity(model, family, latents, conditioning, inject)
    for capture_first in (False, True):
        seen: dict[int, tuple[Tensor, TokenLayout]] = {}

        def keep(forward, layer, rows, seen=seen):
            seen[layer] = rows, forward.layout

        capture = CaptureAttention(every(model), points, size, keep)
        order = (capture, inject) if capture_first else (inject, capture)
        with _kernel_calls(model) as calls, model.attach(order[0]):
            assert torch.equal(velocity(model, family, latents, conditioning, order[1]), plain)
        assert sorted(seen) == sorted(calls) == every(model)
        for layer, (rows, layout) in seen.items():
            values, outputs = (tensor[-2:] for tensor in calls[layer])  # the conditional rows of a pass with both
            assert rows.shape[-1] == values.shape[2] == layout.text_tokens + layout.image_tokens
            assert gap(rows.sum(-1), torch.ones(rows.shape[:-1])) < 1e-5
            expected = outputs[:, :, [layout.joint_start["image"] + token for token in tokens]]
            got = torch.einsum("bpht,bhtd->bhpd", rows, values)
            worst = max(worst, gap(got, expected) / float(expected.abs().max()))
    return worst


@measures("edits, recorded = shared", ROUNDING)
def editing(family: TinyFamily) -> float:
    """Generate, invert and edit to two prompts, by both ways of holding the source."""
    worst = 0.0
    for (recorder, recorded), (sharer, shared) in zip(_sources(family, "device"), _sources(family, "share")):
        edits = recorder.edit(recorded, PROMPTS)
        assert edits.images.shape == (2, 3, *recorded.images.shape[-2:])
        worst = max(worst, gap(edits.latents, sharer.edit(shared, PROMPTS).latents))
        bytes_bound = recorder.model.kv_bytes(recorded.fingerprint.height, recorded.fingerprint.width)
        assert 0 < recorded.store.num_bytes <= bytes_bound * 2 * 3
    return worst


@measures("editing to the source prompt", ROUNDING)
def retracing(family: TinyFamily) -> float:
    """Returns the source, drawn or real, recorded or shared."""
    worst = 0.0
    for keep in ("device", "share"):
        for editor, source in _sources(family, keep):
            edit = editor.edit(source, PROMPTS[0], guidance_scale=source.fingerprint.guidance_scale)
            worst = max(worst, gap(edit.latents, source.latents))
    return worst


@measures("session saved and loaded")
def session(family: TinyFamily) -> float:
    worst = 0.0
    for editor, source in _sources(family, "device"):
        with tempfile.TemporaryDirectory() as folder:
            source.save(folder)
            loaded = sf.Source.load(folder)
        assert loaded.fingerprint == source.fingerprint and set(loaded.store.entries) == set(source.store.entries)
        worst = max(worst, gap(editor.edit(loaded, PROMPTS).latents, editor.edit(source, PROMPTS).latents))
    return worst


@measures("loaded from a folder", ROUNDING)
def loading(family: TinyFamily) -> float:
    """`sf.load` of what `save_pretrained` wrote, the family read from it.

    Weights mapped from a file are aligned otherwise in memory than those made here, and CPU kernels then add in another
    order: the one reason why this is not 0 everywhere.
    """
    model = model_of(family)
    with tempfile.TemporaryDirectory() as folder:
        pipeline_of(family).save_pretrained(folder)
        loaded = sf.load(folder, max_sequence_length=family.text_lengths[0])
    assert loaded.family is model.family and loaded.checkpoint_hash() == model.checkpoint_hash()
    latents = noise(model, square(family))
    return gap(velocity(loaded, family, latents, PROMPTS[:1]), velocity(model, family, latents, PROMPTS[:1]))


def measure_all() -> dict[str, dict[str, float | None]]:
    return {
        name: {key: property.measure(family) for key, property in PROPERTIES.items()}
        for name, family in FAMILIES.items()
    }


def table(figures: dict[str, dict[str, float | None]]) -> str:
    """The README's table: one row a property, one column a family."""
    lines = ["| | bound | " + " | ".join(figures) + " |", "|---|---|" + "---|" * len(figures)]
    for key, property in PROPERTIES.items():
        cells = [_cell(figures[family][key]) for family in figures]
        lines.append(f"| {property.title} | {property.bound:.0e} | ".replace("0e+00", "0") + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(figure: float | None) -> str:
    return "none" if figure is None else f"{figure:.0e}" if figure else "0"


def main() -> None:
    figures = measure_all()
    JSON.write_text(json.dumps(figures, indent=1) + "\n")
    text = README.read_text(encoding="utf-8")
    start, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    README.write_text(text[:start] + table(figures) + text[end:], encoding="utf-8")


if __name__ == "__main__":
    main()
