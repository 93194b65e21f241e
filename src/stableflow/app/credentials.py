"""Content credentials (C2PA): a signed note, in every picture that leaves, of what made it. Off without a key."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stableflow.editing.versions import versions
from stableflow.errors import InputError, MissingExtraError
from stableflow.files import replacing

CERTIFICATE, KEY = "certificate.pem", "key.pem"
CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
MIME = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp"}


@dataclass(frozen=True)
class Credentials:
    """Whoever runs the app owns the key; what is signed says that this app made the picture, not that it is true.

    Args:
        certificate: PEM chain, the signer's own first and without the root; readers trust it if they know its root.
        key: Its private key, PEM without a password.
        algorithm: As C2PA calls it: "es256", "ed25519", "ps256".
    """

    certificate: str
    key: str
    algorithm: str

    def sign(self, picture: Path, given: Path | None = None) -> None:
        """Put credentials into a PNG, in place: drawn by a model, or edited with one from the picture that was given.

        Args:
            picture: Its pixels and its recipe stay as they are.
            given: What was edited, which is named as the parent, with credentials of its own if it has any.
        """
        c2pa = _library()
        made_by = {"name": "stableflow", "version": versions()["stableflow"]}
        builder = c2pa.Builder({"title": picture.name, "format": "image/png", "claim_generator_info": [made_by]})
        kinds = c2pa.C2paDigitalSourceType
        if given is None:
            builder.set_intent(c2pa.C2paBuilderIntent.CREATE, kinds.TRAINED_ALGORITHMIC_MEDIA)
        else:
            _take_parent(builder, given)
            builder.set_intent(c2pa.C2paBuilderIntent.EDIT)
            composite = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
            builder.add_action({"action": "c2pa.edited", "digitalSourceType": composite})
        info = c2pa.C2paSignerInfo(self.algorithm, self.certificate.encode(), self.key.encode(), None)
        signed = io.BytesIO()
        with picture.open("rb") as plain:
            builder.sign(c2pa.Signer.from_info(info), "image/png", plain, signed)
        with replacing(picture) as temporary:
            temporary.write_bytes(signed.getvalue())


def _take_parent(builder: Any, given: Path) -> None:
    data = given.read_bytes()
    kind = next((mime for head, mime in MIME.items() if data.startswith(head)), None)
    if kind is None:  # a form that credentials cannot be read from: its pixels as a PNG
        from PIL import Image

        from stableflow.app.visitors import png_bytes

        with Image.open(given) as picture:
            data, kind = png_bytes(picture.convert("RGBA")), "image/png"
    builder.add_ingredient({"title": "the given picture", "relationship": "parentOf"}, kind, io.BytesIO(data))


def read_credentials(folder: Path | None) -> Credentials | None:
    """Return the credentials in a folder that holds certificate.pem and key.pem; None without a folder.

    Raises:
        MissingExtraError: The extra `credentials` is not installed.
        InputError: A file is missing or damaged, they do not belong together, or C2PA takes no such key.
    """
    if folder is None:
        return None
    _library()
    try:
        certificate, key = ((folder / name).read_text(encoding="ascii") for name in (CERTIFICATE, KEY))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--credentials: {folder} has to hold {CERTIFICATE} and {KEY}: {error}.") from error
    return Credentials(certificate, key, _algorithm(certificate, key))


def _algorithm(certificate: str, key: str) -> str:
    """What C2PA calls the algorithm of a key, which has to be the certificate's."""
    # they come with c2pa-python, an extra
    from cryptography import x509  # pyright: ignore[reportMissingImports]
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa  # pyright: ignore[reportMissingImports]
    from cryptography.hazmat.primitives.serialization import (  # pyright: ignore[reportMissingImports]
        load_pem_private_key,
    )

    try:
        private = load_pem_private_key(key.encode(), password=None)
        public = x509.load_pem_x509_certificates(certificate.encode())[0].public_key()
    except (ValueError, TypeError, IndexError) as error:
        raise InputError(f"--credentials: the certificate or the key cannot be read: {error}.") from error
    if private.public_key() != public:
        raise InputError(f"--credentials: {KEY} is not the key of the first certificate in {CERTIFICATE}.")
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(private, rsa.RSAPrivateKey) and private.key_size >= 2048:
        return "ps256"
    if isinstance(private, ec.EllipticCurvePrivateKey) and private.curve.name in CURVES:
        return CURVES[private.curve.name]
    raise InputError("--credentials: C2PA takes keys of P-256, P-384, P-521, Ed25519, or RSA from 2,048 bits.")


def _library() -> Any:
    try:
        import c2pa  # pyright: ignore[reportMissingImports]: an extra
    except ImportError as error:
        raise MissingExtraError("--credentials needs the extra: pip install 'stableflow[credentials]'.") from error
    return c2pa
