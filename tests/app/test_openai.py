"""The real `openai` package edits pictures here."""

import base64
import io

import httpx
import numpy as np
import openai
import pytest
from app_tools import BLUE, DOG, PICTURE, QUICK, Guest
from PIL import Image

CAT, BLACK = "a white cat sitting on the grass at noon", "a black cat sitting on the grass at noon"
FAST = {"stableflow_preset": "fast", "stableflow_steps": "2"}


@pytest.fixture(scope="module")
def client(house):
    return openai.OpenAI(base_url=f"{house.base}/v1", api_key="none", max_retries=0, timeout=120)


def picture(answer, row=0):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(answer.data[row].b64_json))).convert("RGB"))


def test_models_and_health(client, house):
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert httpx.get(f"{house.base}/health").json() == {"status": "ok"}


def test_an_edit_within_a_mask_and_nothing_is_kept(client, house):
    kept = len(list(house.folder.glob("visitors/*/history/*")))
    given = np.asarray(Image.open(PICTURE).convert("RGB"))
    mask = Image.new("RGBA", (256, 256), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (64, 32, 224, 240))  # transparent: here
    buffer = io.BytesIO()
    mask.save(buffer, format="PNG")
    extras = FAST | {"stableflow_source_prompt": CAT}
    with PICTURE.open("rb") as image:
        answer = client.images.edit(
            model="tiny", image=image, mask=("mask.png", buffer.getvalue()), prompt=BLACK, extra_body=extras
        )
    edited = picture(answer)
    assert edited.shape == given.shape and np.array_equal(edited[:, :48], given[:, :48])
    assert not np.array_equal(edited, given)
    assert len(list(house.folder.glob("visitors/*/history/*"))) == kept


def test_several_pictures_of_a_size_by_words_alone(client):
    answer = client.images.edit(
        model="tiny", image=PICTURE, prompt=f"{CAT} -> {BLACK}", n=2, size="256x256", extra_body=FAST
    )
    assert len(answer.data) == 2 and picture(answer).shape == (256, 256, 3)
    assert not np.array_equal(picture(answer, 0), picture(answer, 1))


def test_a_picture_made_here_needs_no_description(client, house):
    guest = Guest(house.base)
    made = guest.file(guest.edit(QUICK), "0/edit_1.png")
    undescribed = client.images.edit(model="tiny", image=("a.png", made), prompt=DOG, extra_body=FAST)
    described = client.images.edit(
        model="tiny", image=("a.png", made), prompt=DOG, extra_body=FAST | {"stableflow_source_prompt": BLUE}
    )
    assert np.array_equal(picture(undescribed), picture(described))


@pytest.mark.parametrize(
    "fields, told",
    [
        ({"prompt": ""}, "different"), ({"prompt": "x", "size": "9x9"}, "size"),
        ({"prompt": "x", "response_format": "url"}, "b64_json"),
        ({"prompt": "x", "extra_body": {"stableflow_model": "evil"}}, "Unknown fields stableflow_model"),
        ({"prompt": "x", "extra_body": {"stableflow_where": "mask:/etc/passwd"}}, "where"),
        ({"prompt": "x", "extra_body": {"stableflow_strength": "7"}}, "strength"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_an_error_of_openais_form(client, fields, told):
    with pytest.raises(openai.UnprocessableEntityError, match=told):
        client.images.edit(model="tiny", image=PICTURE, **fields)


def test_no_picture_is_an_error(client):
    with pytest.raises(openai.UnprocessableEntityError, match="picture"):
        client.images.edit(model="tiny", image=("a.png", b"nothing"), prompt="x")
