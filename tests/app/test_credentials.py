"""Content credentials, signed with a throw-away key that is made here, read by the library itself."""

import datetime
import io
import json

import numpy as np
import pytest
from app_tools import PICTURE, QUICK, Guest, serving
from PIL import Image

from stableflow.app.credentials import read_credentials
from stableflow.errors import InputError
from stableflow.images import read_recipe

c2pa = pytest.importorskip("c2pa", reason="pip install 'stableflow[credentials]' ends this skip")
x509 = pytest.importorskip("cryptography.x509")
from cryptography.hazmat.primitives import hashes, serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec, ed25519  # noqa: E402


def certificate(name, key, issuer=None, issuer_key=None):
    """A certificate of C2PA's profile; a root where there is no issuer."""

    def title(text):
        names = ((x509.NameOID.COMMON_NAME, text), (x509.NameOID.ORGANIZATION_NAME, "test"))
        return x509.Name([x509.NameAttribute(which, value) for which, value in names])

    now, root = datetime.datetime.now(datetime.UTC), issuer is None
    signing = issuer_key or key
    made = (
        x509.CertificateBuilder()
        .subject_name(title(name)).issuer_name(title(name) if root else issuer.subject)
        .public_key(key.public_key()).serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=root, path_length=None), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(not root, False, False, False, False, root, root, False, False), critical=True
        )
    )  # fmt: skip
    if not root:
        made = made.add_extension(x509.ExtendedKeyUsage([x509.OID_EMAIL_PROTECTION]), critical=False)
    return made.sign(signing, None if isinstance(signing, ed25519.Ed25519PrivateKey) else hashes.SHA256())


def pem(key):
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def write(folder, key):
    root = ec.generate_private_key(ec.SECP256R1())
    authority = certificate("root", root)
    folder.mkdir(exist_ok=True)
    (folder / "certificate.pem").write_bytes(
        certificate("signer", key, authority, root).public_bytes(serialization.Encoding.PEM)
    )
    (folder / "key.pem").write_bytes(pem(key))
    return folder


def told(data):
    """What the library reads in a picture, and the manifest that is its own."""
    read = json.loads(c2pa.Reader("image/png", io.BytesIO(data)).json())
    return read, read["manifests"][read["active_manifest"]]


def actions(manifest):
    return next(one["data"]["actions"] for one in manifest["assertions"] if one["label"].startswith("c2pa.actions"))


def test_pictures_that_leave_are_signed_and_keep_pixels_and_recipe(tiny, house, tmp_path):
    credentials = read_credentials(write(tmp_path / "key", ec.generate_private_key(ec.SECP256R1())))
    with serving(tiny, tmp_path / "kept", credentials=credentials) as signing:
        guest, plain = Guest(signing.base), Guest(house.base)
        data = guest.file(guest.edit(QUICK), "0/edit_1.png")
        read, manifest = told(data)
        assert read["validation_state"] == "Valid", read["validation_results"]
        assert manifest["claim_generator_info"][0]["name"] == "stableflow"
        assert actions(manifest)[0]["action"] == "c2pa.created"
        assert actions(manifest)[0]["digitalSourceType"].endswith("/trainedAlgorithmicMedia")
        unsigned = plain.file(plain.edit(QUICK), "0/edit_1.png")
        assert np.array_equal(Image.open(io.BytesIO(data)), Image.open(io.BytesIO(unsigned)))
        (tmp_path / "signed.png").write_bytes(data)
        assert read_recipe(tmp_path / "signed.png")["edits"] == QUICK["to"]
        assert guest.upload(data)["restored"]["ask"]["to"] == QUICK["to"]
        with pytest.raises(c2pa.C2paError):
            told(unsigned)

        given = guest.upload(data)["id"]  # a signed picture, edited further
        again = guest.edit(
            {**QUICK, "picture": given, "seed": None, "steps": 2, "prompt": QUICK["to"][0], "to": ["a dog"]}
        )
        read, manifest = told(guest.file(again, "0/edit_1.png"))
        assert read["validation_state"] == "Valid" and len(read["manifests"]) == 2, "the parent's are carried along"
        assert [one["action"] for one in actions(manifest)] == ["c2pa.opened", "c2pa.edited"]
        assert manifest["ingredients"][0]["relationship"] == "parentOf"

        flipped = bytearray(data)
        flipped[-40] ^= 1
        assert told(bytes(flipped))[0]["validation_state"] == "Invalid"


def test_an_ed25519_key_and_a_given_file_of_any_kind(tmp_path):
    credentials = read_credentials(write(tmp_path / "key", ed25519.Ed25519PrivateKey.generate()))
    assert credentials.algorithm == "ed25519"
    for number, kind in enumerate(("PNG", "JPEG", "GIF")):
        made, given = tmp_path / f"{number}.png", tmp_path / f"given{number}"
        Image.new("RGB", (32, 32), "red").save(made)
        Image.open(PICTURE).convert("RGB").save(given, format=kind)
        credentials.sign(made, given)
        assert told(made.read_bytes())[0]["validation_state"] == "Valid"


def test_keys_that_cannot_be_used_are_refused_before_anybody_comes(tmp_path):
    assert read_credentials(None) is None
    with pytest.raises(InputError, match="certificate.pem"):
        read_credentials(tmp_path)
    folder = write(tmp_path / "a", ec.generate_private_key(ec.SECP256R1()))
    (folder / "key.pem").write_bytes(pem(ec.generate_private_key(ec.SECP256R1())))
    with pytest.raises(InputError, match="not the key of"):
        read_credentials(folder)
    (folder / "key.pem").write_text("nonsense")
    with pytest.raises(InputError, match="cannot be read"):
        read_credentials(folder)
    with pytest.raises(InputError, match="C2PA takes"):
        read_credentials(write(tmp_path / "b", ec.generate_private_key(ec.SECP256K1())))
