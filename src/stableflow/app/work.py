"""What each kind of request comes to: the work that the desk runs, and the JSON that pages get."""

import base64
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from stableflow.app.ask import Ask, orders
from stableflow.app.codes import lines_of
from stableflow.app.credentials import Credentials
from stableflow.app.desk import Job
from stableflow.app.filters import ContentFilter
from stableflow.app.history import find_entry, require_place, save_entry
from stableflow.app.limits import Limits
from stableflow.app.studio import Workshop
from stableflow.app.visitors import Visitor, Visitors, png_bytes
from stableflow.errors import InputError
from stableflow.files import ASIDE
from stableflow.images import load_image, to_pil
from stableflow.order import Order
from stableflow.reading import read_json

Work = Callable[[Job], Any]
ROOM = 4 * 2**20  # bytes that a result may be expected to take


@dataclass(frozen=True)
class Office:
    """What work needs: the studio, who the visitors are, the limits, the filter, and what signs pictures."""

    studio: Workshop
    visitors: Visitors
    limits: Limits
    content: ContentFilter | None = None
    credentials: Credentials | None = None

    def orders(self, visitor: Visitor, ask: Ask) -> list[Order]:
        """Return a request's runs, with its words and pictures past the filter."""
        made = orders(ask, visitor.upload, self.studio.loaded)
        if self.content is not None:
            for text in [ask.prompt, *ask.to, *(layer.prompt for layer in ask.layers)]:
                _refuse(self.content.refuses_words(text))
            if made[0].image is not None:
                _refuse(self.content.refuses_picture(to_pil(load_image(made[0].image).pixels)))
        return made

    def check_results(self, pictures: Sequence[Image.Image]) -> None:
        """Raise InputError where the filter refuses what was made."""
        for picture in pictures if self.content is not None else ():
            assert self.content is not None
            _refuse(self.content.refuses_picture(picture))


def edit(office: Office, visitor: Visitor, ask: Ask) -> Work:
    """Return the work of an edit: its runs, saved as one result of the history."""
    if ask.layers:
        raise InputError("Layers are drawn by the work of kind 'layers', and this is 'edit'.")
    if not ask.to:
        raise InputError("Say what should be different: change some words of the description.")
    made = office.orders(visitor, ask)
    office.visitors.require_room(visitor, ROOM)
    require_place(visitor, office.limits.history)

    def work(job: Job) -> Any:
        runs = []
        for number, order in enumerate(made, start=1):
            job.check()
            of = f" {number} of {len(made)}" if len(made) > 1 else ""
            runs.append(office.studio.edit(order, job, f"editing{of}"))
        office.check_results([to_pil(pixels) for run in runs for pixels in run.result.images])
        said = ask.model_copy(update={"seed": made[0].seed} if made[0].image is None else {})
        notes = list(dict.fromkeys(note for run in runs for note in run.notes))
        masks = {} if ask.mask is None else {"mask": visitor.upload(ask.mask)}
        values = said.model_dump(exclude_defaults=True, by_alias=True)
        return save_entry(visitor, values, runs, masks, lines_of(made), office.credentials) | {"notes": notes}

    return work


def source(office: Office, visitor: Visitor, ask: Ask) -> Work:
    """Return the work of drawing a picture, which is kept for its edits and shown."""
    order = office.orders(visitor, ask)[0]

    def work(job: Job) -> Any:
        made, kept = office.studio.source(order, job)
        picture = to_pil(made.images[0])
        office.check_results([picture])
        return {"picture": data_url(picture), "seed": order.seed, "kept": kept, "width": picture.width,
                "height": picture.height}  # fmt: skip

    return work


def where(office: Office, visitor: Visitor, ask: Ask) -> Work:
    """Return the work of finding a region: a mask that the page shows, to be corrected by hand."""
    order = office.orders(visitor, ask)[0]
    if order.region is None:
        raise InputError("Say where: a word of the picture's description, such as 'word:dog'.")

    def work(job: Job) -> Any:
        region = office.studio.where(order, job)
        return {"mask": data_url(to_pil(region.amount[:1].expand(3, -1, -1))), "share": round(region.share(), 4)}

    return work


def why(office: Office, visitor: Visitor, ask: Ask, point: tuple[int, int]) -> Work:
    """Return the work of showing what a point attends to, in the source and in an edit."""
    if not ask.to:
        raise InputError("Make an edit first: attention is shown while it is drawn.")
    order = office.orders(visitor, ask)[0]
    return lambda job: office.studio.why(order, job, point)


def session(office: Office, visitor: Visitor, name: str) -> Work:
    """Return the work of packing the source of a result, as `Source.load` and --session read it."""
    folder = find_entry(visitor, name)
    values = read_json(folder / "entry.json", what="a result")["ask"]
    given = folder / "given"
    if given.is_file():
        values = values | {"picture": visitor.keep_upload(given.read_bytes(), office.limits)}
    ask = Ask.model_validate({key: value for key, value in values.items() if key not in ("where", "mask")})
    order = orders(ask, visitor.upload, office.studio.loaded)[0]
    office.visitors.require_room(visitor, 0)

    def work(job: Job) -> Any:
        made = office.studio.session(order, job)
        job.begin("packing the session")
        with tempfile.TemporaryDirectory(dir=visitor.history, prefix=".session-", suffix=ASIDE) as packing:
            made.save(packing)
            packed = Path(packing) / "session.zip"
            with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
                for file in ("source.json", "source.safetensors"):
                    archive.write(Path(packing) / file, f"session/{file}")
            packed.replace(folder / "session.zip")
        return {"file": "session.zip"}

    return work


def data_url(image: Image.Image) -> str:
    """Return a picture as a data URL."""
    return "data:image/png;base64," + base64.b64encode(png_bytes(image)).decode()


def _refuse(reason: str | None) -> None:
    if reason is not None:
        raise InputError(f"This app's content filter refuses this: {reason}")
