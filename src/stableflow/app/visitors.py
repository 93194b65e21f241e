"""Visitors: who asks, how often, what is theirs on disk, and when it goes."""

import hashlib
import os
import re
import secrets
import shutil
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image

from stableflow.app.desk import Busy
from stableflow.app.limits import DAY, MINUTE, Limits
from stableflow.errors import InputError, UnknownNameError
from stableflow.files import replacing
from stableflow.images import load_image

TOKEN = re.compile(r"[A-Za-z0-9_-]{32}")
ID = re.compile(r"[0-9a-f]{32}")
MOST_RATES = 10_000  # visitors and addresses whose pace is remembered


@dataclass(frozen=True)
class Visitor:
    """One browser or program.

    Args:
        key: What its folder is called: a digest of its token, so that the disk holds no token.
        folder: Its own; made when it first keeps something.
    """

    key: str
    folder: Path

    @property
    def uploads(self) -> Path:
        return self.folder / "uploads"

    @property
    def history(self) -> Path:
        return self.folder / "history"

    def keep_upload(self, data: bytes, limits: Limits) -> str:
        """Check and keep a picture; returns its id, the digest of its bytes.

        Raises:
            ImageError: It is no picture, damaged or too large.
        """
        name = hashlib.sha256(data).hexdigest()[:32]
        with replacing(self.uploads / name) as temporary:
            temporary.write_bytes(data)
            load_image(temporary, max_pixels=limits.pixels)
        return name

    def upload(self, name: str) -> Path:
        """Return the file of an upload.

        Raises:
            UnknownNameError: This visitor has none of this id.
        """
        path = self.uploads / name
        if not ID.fullmatch(name) or not path.is_file():
            raise UnknownNameError("This picture is no longer here; please give it again.")
        path.touch()
        return path

    def num_bytes(self) -> int:
        """Return the bytes of all that is kept."""
        return folder_bytes(self.folder)


class Visitors:
    """All visitors of one app, by the token in their cookie.

    Args:
        folder: Where their folders are.
        limits: Pace, quota and expiry.
    """

    def __init__(self, folder: Path, limits: Limits):
        self._folder, self._limits = folder / "visitors", limits
        self._paces: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()
        self._secret = secrets.token_bytes(32)
        self._counted = (0.0, 0)  # when, and how many bytes all visitors had

    def new_token(self) -> str:
        """Return a token that cannot be guessed."""
        return secrets.token_urlsafe(24)

    def of(self, token: str | None) -> Visitor | None:
        """Return the visitor with this token; None where it has not the form of one."""
        if token is None or not TOKEN.fullmatch(token):
            return None
        key = hashlib.sha256(b"stableflow visitor " + token.encode()).hexdigest()[:32]
        return Visitor(key, self._folder / key)

    def of_program(self, address: str, key: str) -> Visitor:
        """Return who a program without a cookie is: its address and its key, as long as this app runs."""
        digest = hashlib.sha256(b"\n".join([self._secret, address.encode(), key.encode()])).hexdigest()[:32]
        return Visitor(digest, self._folder / digest)

    def count_request(self, who: str, rate: float) -> None:
        """Count one request towards someone's rate.

        Args:
            who: A visitor's key, or an address.
            rate: Requests a minute.

        Raises:
            Busy: They come too fast.
        """
        now = time.monotonic()
        with self._lock:
            left, last = self._paces.pop(who, (rate, now))
            left = min(rate, left + (now - last) * rate / MINUTE)
            self._paces[who] = max(0.0, left - 1), now
            while len(self._paces) > MOST_RATES:
                self._paces.popitem(last=False)
        if left < 1:
            raise Busy(f"That is more than {rate:.0f} requests a minute. Please wait a moment.", MINUTE / rate)

    def require_room(self, visitor: Visitor, nbytes: int) -> None:
        """Raise InputError unless a visitor may keep so many bytes more."""
        if visitor.num_bytes() + nbytes > self._limits.history_bytes:
            raise InputError(
                f"Your history takes {self._limits.history_bytes / 2**20:.0f} MB, as much as one visitor may keep. "
                "Delete results that you do not need."
            )
        when, total = self._counted
        if time.monotonic() - when > MINUTE or not when:
            total = folder_bytes(self._folder)
            self._counted = time.monotonic(), total
        if total + nbytes > self._limits.all_bytes:
            raise InputError("The disk that this app may use is full. Please tell whoever runs it.")

    def without_paths(self, text: str) -> str:
        """Return a message in which this app's files are called what visitors know them as."""
        return re.sub(re.escape(str(self._folder)) + r"[^\s,;:]*", "the picture", text)

    def sweep(self) -> None:
        """Delete what was not used for long: uploads after a day, visitors after the days of the limits."""
        now = time.time()
        for folder in self._folder.glob("*"):
            if not ID.fullmatch(folder.name) or folder.is_symlink():
                continue
            used = max(map(_changed, (folder, folder / "history", folder / "uploads")))
            if now - used > self._limits.keep_days * DAY:
                shutil.rmtree(folder, ignore_errors=True)
                continue
            for upload in (folder / "uploads").glob("*"):
                if now - _changed(upload) > DAY:
                    upload.unlink(missing_ok=True)
                    os.utime(folder / "uploads", (used, used))  # sweeping is no use


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() and not path.is_symlink() else 0
        except OSError:  # deleted meanwhile
            continue
    return total


def png_bytes(image: Image.Image) -> bytes:
    """Return a picture as a PNG."""
    buffer = BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
