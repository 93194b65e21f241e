"""CLIP, DINOv2, structure distance and LPIPS on tiny random networks of the real classes, against hand computations."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_flux import WORDS, tiny_tokenizer
from transformers import CLIPConfig, CLIPModel, Dinov2Config, Dinov2Model, ViTConfig, ViTModel

from stableflow.errors import InputError, LoadError
from stableflow.metrics import LPIPS, Clip, ClipDirection, ClipImage, ClipText, Dino, DinoCls, DinoPatch, Keys, score
from stableflow.metrics.backbone import Preprocessing
from stableflow.metrics.lpips import ALEXNET, VGG16
from stableflow.metrics.structure import StructureDistance

MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
PROMPTS = [("a red dog", "a blue dog on the grass"), ("a cat", "a car")]
SIZE = 28


@pytest.fixture(scope="module")
def pair():
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(2, 2, 3, 6, 6, generator=generator)
    return tuple(F.interpolate(images, size=(40, 52), mode="bicubic").clamp(0, 1) for images in coarse)


def build(kind, config, folder, **preprocessing):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = kind(config).eval()
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    model.save_pretrained(folder)
    settings = {"do_resize": True, "size": {"shortest_edge": SIZE}, "resample": 3, "do_center_crop": True,
                "crop_size": {"height": SIZE, "width": SIZE}, "image_mean": MEAN, "image_std": STD}  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(settings | preprocessing))
    return model


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny-clip")
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = tower | {"vocab_size": len(WORDS), "max_position_embeddings": 12, "eos_token_id": 1, "pad_token_id": 0}
    config = CLIPConfig(
        text_config=text, vision_config=tower | {"image_size": SIZE, "patch_size": 7}, projection_dim=12
    )
    build(CLIPModel, config, folder)
    tiny_tokenizer(12).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def dino_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny-dinov2")
    config = Dinov2Config(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=SIZE, patch_size=7)
    build(Dinov2Model, config, folder)
    return folder


def by_pillow(images):
    """Shorter side to 28, middle 28 x 28, normalised: as CLIP's own recipe does it on 8-bit pictures."""
    rows = []
    for image in images:
        picture = Image.fromarray((image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))
        picture = picture.resize((int(SIZE * 52 / 40), SIZE), Image.Resampling.BICUBIC)
        left = (picture.width - SIZE) // 2
        pixels = np.asarray(picture.crop((left, 0, left + SIZE, SIZE))) / 255.0
        rows.append(torch.from_numpy((pixels - MEAN) / STD).permute(2, 0, 1))
    return torch.stack(rows).float()


def test_preprocessing_is_pillows(clip_folder, pair):
    preprocessing = Preprocessing.read(clip_folder)
    difference = (preprocessing(pair[0]) - by_pillow(pair[0])).abs().max() * min(STD)
    assert difference < 1.5 / 255  # the recipe rounds to 8 bits twice
    assert "bicubic shorter side to 28, centre crop (28, 28)" in preprocessing.describe()


def test_clip_by_hand(clip_folder, pair):
    clip, model = Clip.load(clip_folder), CLIPModel.from_pretrained(clip_folder)
    tokens = tiny_tokenizer(12)([text for texts in zip(*PROMPTS) for text in texts], padding=True, return_tensors="pt")
    pixels = clip.backbone.preprocessing(torch.cat(pair))
    with torch.no_grad():
        out = model(pixel_values=pixels, input_ids=tokens.input_ids, attention_mask=tokens.attention_mask)
    image, text = out.image_embeds.double().numpy(), out.text_embeds.double().numpy()
    cosine = lambda a, b: a @ b / np.linalg.norm(a) / np.linalg.norm(b)  # noqa: E731
    got = {
        metric.card.name: score(metric, *pair, prompts=PROMPTS).values
        for metric in (ClipImage(clip), ClipText(clip), ClipDirection(clip))
    }
    for row in range(2):  # rows 0, 1 are sources and source prompts, 2, 3 the edits and edited prompts
        assert float(got["clip_img"][row]) == pytest.approx(cosine(image[row], image[row + 2]), abs=1e-5)
        assert float(got["clip_txt"][row]) == pytest.approx(cosine(image[row + 2], text[row + 2]), abs=1e-5)
        direction = cosine(image[row + 2] - image[row], text[row + 2] - text[row])
        assert float(got["clip_dir"][row]) == pytest.approx(direction, abs=1e-5)
    alone = ClipText(clip)(pair[0][:1], pair[1][:1], prompts=PROMPTS[:1])
    assert alone.item() == pytest.approx(got["clip_txt"][0].item(), abs=1e-6), "padding of a batch does not matter"
    same = ClipDirection(clip)(pair[0], pair[0], prompts=PROMPTS)
    assert torch.equal(same, torch.zeros(2)), "nothing moved"


def test_results_name_the_backbone_and_its_weights(clip_folder, tmp_path, pair):
    card = ClipImage(Clip.load(clip_folder)).card
    assert card.backbone == clip_folder.name and len(card.weights) == 16 and "/" not in card.backbone
    assert Clip.load(clip_folder).backbone.weights == card.weights
    other = tmp_path / "other"
    other.mkdir()
    for file in clip_folder.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    tensors = load_file(other / "model.safetensors")
    tensors["visual_projection.weight"][0, 0] += 1e-3
    save_file(tensors, other / "model.safetensors", {"format": "pt"})
    assert Clip.load(other).backbone.weights != card.weights


def test_missing_weights_are_refused_not_made_up(clip_folder, tmp_path):
    for file in clip_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["visual_projection.weight"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(LoadError, match=r"lacks weights of CLIPModel.*visual_projection"):
        Clip.load(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(LoadError, match="Pass a local folder with config.json"):
        Clip.load(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"size": 28}')
    (tmp_path / "model.safetensors").write_bytes((clip_folder / "model.safetensors").read_bytes())
    with pytest.raises(LoadError, match="image_mean"):
        Clip.load(tmp_path)


def test_a_bare_tokenizer_file_will_do(clip_folder, tmp_path):
    for file in clip_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "tokenizer_config.json").unlink()
    texts = ["a red dog", "a cat on the grass"]
    assert torch.equal(Clip.load(tmp_path).embed_texts(texts), Clip.load(clip_folder).embed_texts(texts))
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(LoadError, match="no readable tokenizer"):
        Clip.load(tmp_path)


def test_clip_refuses_a_tokenizer_without_the_models_end(clip_folder, tmp_path, pair):
    for file in clip_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config["text_config"]["eos_token_id"] = 2  # legacy: the end is the highest id, which is a word here
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(LoadError, match="does not end texts"):
        ClipText(Clip.load(tmp_path))(*pair, prompts=PROMPTS)


def test_prompts(clip_folder, pair):
    clip = Clip.load(clip_folder)
    with pytest.raises(InputError, match="clip_txt needs one .* a row: 2 here, got none"):
        ClipText(clip)(*pair)
    with pytest.raises(InputError, match="2 here, got 1"):
        ClipDirection(clip)(*pair, prompts=PROMPTS[:1])
    with pytest.warns(UserWarning, match="CLIP reads 12 tokens"):
        clip.embed_texts(["a red dog on the grass a red dog on the grass"])


def test_dino_by_hand(dino_folder, pair):
    dino, model = Dino.load(dino_folder), Dinov2Model.from_pretrained(dino_folder)
    with torch.no_grad():
        a, b = (model(dino.backbone.preprocessing(images)).last_hidden_state.double().numpy() for images in pair)
    cosine = lambda x, y: x @ y / np.linalg.norm(x) / np.linalg.norm(y)  # noqa: E731
    mask = torch.zeros(2, 1, 40, 52)
    mask[:, :, :20, 6:26] = 1  # the crop keeps columns 6 .. 46: the upper left quarter, patches 0, 1, 4, 5 of 4 x 4
    for row in range(2):
        assert DinoCls(dino)(*pair)[row].item() == pytest.approx(cosine(a[row, 0], b[row, 0]), abs=1e-5)
        places = [cosine(a[row, 1 + i], b[row, 1 + i]) for i in range(16)]
        assert DinoPatch(dino)(*pair)[row].item() == pytest.approx(np.mean(places), abs=1e-5)
        quarter = np.mean([places[i] for i in (0, 1, 4, 5)])
        assert DinoPatch(dino)(*pair, mask=mask)[row].item() == pytest.approx(quarter, abs=2e-2)
    assert score(DinoPatch(dino), *pair).card.backbone == dino_folder.name


@pytest.mark.parametrize("kind", ["dinov2", "vit"])
def test_structure_by_hand(dino_folder, tmp_path, pair, kind):
    if kind == "vit":
        config = ViTConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
                           image_size=SIZE, patch_size=7)  # fmt: skip
        model, folder = build(ViTModel, config, tmp_path), tmp_path
    else:
        model, folder = Dinov2Model.from_pretrained(dino_folder), dino_folder
    keys = Keys.load(folder)
    captured = [module for name, module in model.named_modules() if name.endswith("k_proj")][-1]
    matrices = []
    for images in pair:
        inputs = []
        handle = captured.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))  # noqa: B023
        with torch.no_grad():
            model(keys.backbone.preprocessing(images))
            k = (inputs[0] @ captured.weight.T + captured.bias).double().numpy()
        handle.remove()
        unit = k / np.linalg.norm(k, axis=-1, keepdims=True)
        matrices.append(np.einsum("bid,bjd->bij", unit, unit))
    expected = ((matrices[0] - matrices[1]) ** 2).mean((1, 2))
    assert np.allclose(StructureDistance(keys)(*pair).numpy(), expected, atol=1e-6) and expected.min() > 1e-5
    assert torch.equal(StructureDistance(keys)(pair[0], pair[0]), torch.zeros(2))


def test_networks_see_black_outside_the_mask(clip_folder, dino_folder, pair):
    mask = torch.zeros(40, 52)
    mask[8:32, 10:40] = 1
    changed = pair[1].clone()
    changed[..., 40:] = 0.3
    metrics = [
        ClipImage(Clip.load(clip_folder)),
        DinoCls(Dino.load(dino_folder)),
        StructureDistance(Keys.load(dino_folder)),
    ]
    for metric in metrics:
        assert torch.equal(metric(*pair, mask=mask), metric(pair[0], changed, mask=mask))
        assert torch.allclose(metric(*pair, mask=mask), metric(*(images * mask for images in pair)), atol=1e-6)
        assert not torch.allclose(metric(*pair, mask=mask), metric(*pair))
        assert metric(*pair, mask=torch.zeros(40, 52)).isnan().all()


def lpips_files(folder, trunk, seed=0):
    generator = torch.Generator().manual_seed(seed)
    network = trunk.build()
    weights = {
        f"features.{name}": torch.randn(t.shape, generator=generator) * (t[0].numel() ** -0.5 if t.ndim > 1 else 0.1)
        for name, t in network.state_dict().items()
    }
    save_file(weights | {"classifier.6.bias": torch.zeros(3)}, folder / "trunk.safetensors")
    channels = [network[tap - 1].out_channels for tap in trunk.taps]
    linear = {f"lin{i}.model.1.weight": torch.rand(1, c, 1, 1, generator=generator) for i, c in enumerate(channels)}
    save_file(linear, folder / "linear.safetensors")
    return weights, linear


def test_lpips_by_hand(tmp_path, pair):
    """AlexNet written out once more, and the sum in numpy."""
    w, linear = lpips_files(tmp_path, ALEXNET)
    metric = LPIPS.load(tmp_path / "trunk.safetensors", tmp_path / "linear.safetensors")

    def taps(images):
        x = (images - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(
            3, 1, 1
        )
        found = []
        plan = [(0, 4, 2), (3, 1, 2), (6, 1, 1), (8, 1, 1), (10, 1, 1)]
        for place, (i, stride, padding) in enumerate(plan):
            if place in (1, 2):
                x = F.max_pool2d(x, 3, 2)
            x = F.conv2d(x, w[f"features.{i}.weight"], w[f"features.{i}.bias"], stride, padding).relu()
            found.append(x.double().numpy())
        return found

    mask = torch.zeros(40, 52)
    mask[:, :26] = 1
    for row in range(2):
        total, masked = 0.0, 0.0
        for i, (f, g) in enumerate(zip(taps(pair[0][row : row + 1]), taps(pair[1][row : row + 1]))):
            f, g = (x[0] / np.maximum(np.linalg.norm(x[0], axis=0), 1e-10) for x in (f, g))
            places = (linear[f"lin{i}.model.1.weight"].double().numpy()[0] * (f - g) ** 2).sum(0)
            share = F.adaptive_avg_pool2d(mask[None, None], places.shape)[0, 0].double().numpy()
            total += places.mean()
            masked += (places * share).sum() / share.sum()
        assert metric(*pair)[row].item() == pytest.approx(total, rel=1e-4)
        assert metric(*pair, mask=mask)[row].item() == pytest.approx(masked, rel=1e-4)
    assert torch.equal(metric(pair[0], pair[0]), torch.zeros(2))
    assert metric.card.backbone == "AlexNet" and len(metric.card.weights) == 16


def test_lpips_knows_its_files(tmp_path, pair):
    for trunk in (ALEXNET, VGG16):
        (tmp_path / trunk.name).mkdir()
        lpips_files(tmp_path / trunk.name, trunk)
    alex, vgg = tmp_path / "AlexNet", tmp_path / "VGG16"
    deep = LPIPS.load(vgg / "trunk.safetensors", vgg / "linear.safetensors")
    assert deep.card.backbone == "VGG16" and deep(*pair).min() > 0
    with pytest.raises(LoadError, match=r"taps want \[\(1, 64, 1, 1\), \(1, 192, 1, 1\).*lin0"):
        LPIPS.load(alex / "trunk.safetensors", vgg / "linear.safetensors")
    with pytest.raises(LoadError, match="torch.load"):
        LPIPS.load(tmp_path / "none.safetensors", alex / "linear.safetensors")
    with pytest.raises(LoadError, match="neither AlexNet nor VGG16"):
        LPIPS.load(alex / "linear.safetensors", alex / "linear.safetensors")
    with pytest.raises(InputError, match="at least 32 pixels"):
        deep(pair[0][..., :20], pair[1][..., :20])
