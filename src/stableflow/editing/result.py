"""What an edit returns, and how it is written down."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from stableflow.editing.source import Source
from stableflow.errors import InputError
from stableflow.exact import FilePicture, put_back, read_file_picture
from stableflow.files import refuse_to_replace, write_text_atomic
from stableflow.images import comparison_grid, save_png, to_pil
from stableflow.region import Region
from stableflow.types import Images, Latents


@dataclass(frozen=True, eq=False)
class EditResult:
    """Edits of one source.

    Args:
        prompts: The edited prompts, one an edit.
        images: (edits, 3, height, width) in [0, 1].
        latents: Final latents, nudging undone, float32.
        source: What was edited.
        recipe: Everything that made it, as JSON values.
        region: How far the edits show, at the pixels of `images`, where outside the given picture shows; None where
            the edits are shown whole.
    """

    prompts: tuple[str, ...]
    images: Images
    latents: Latents
    source: Source
    recipe: dict[str, Any]
    region: Region | None = None

    @property
    def source_image(self) -> Images:
        """The source as the model draws it, (1, 3, height, width) in [0, 1]."""
        return self.source.images

    @property
    def outside_change(self) -> list[float]:
        """Mean absolute difference to the given picture outside the region, one an edit, 0 to 1; 0 is no change.

        Without a region, of the whole picture.
        """
        return self.recipe["outside_change"]

    @property
    def shift(self) -> list[tuple[int, int]]:
        """By how many pixels (x, y) each edit as a whole lies beside the given picture, by phase correlation."""
        return [(x, y) for x, y in self.recipe["shift"]]

    def save(
        self, folder: str | Path, *, metadata: bool = True, original: str | Path | Image.Image | None = None
    ) -> list[Path]:
        """Write source.png, edit_1.png ..., comparison.png and result.json.

        Args:
            folder: Made if needed; files of the same name are replaced, each whole or not at all.
            metadata: Put the recipe into every PNG, so that a run can be repeated from any of them.
            original: The file that the source was read from. Edits of a region are put back into it: at its own
                resolution and bit depth, with every number outside the region as the file has it.

        Returns:
            The files, result.json last: where it stands, all are there.

        Raises:
            InputError: The original is one of the files to write, or goes with no region.
        """
        folder = Path(folder)
        text = self._text() if metadata else None
        names = [f"edit_{i}.png" for i in range(1, len(self.images) + 1)]
        if isinstance(original, str | Path):
            refuse_to_replace(original, [folder / name for name in ["source.png", *names, "comparison.png"]])
        save_png(folder / "source.png", to_pil(self.source.images[0], self.source.alpha), text=text)
        for row, name in enumerate(names):
            if original is None:
                save_png(folder / name, to_pil(self.images[row], self.source.alpha), text=text)
            else:
                self.put_back(original, row).save(folder / name, text=text)
        pictures = [self.source.images[0], *self.images]
        labels = [f"source: {self.source.fingerprint.prompt}", *self.prompts]
        grid = comparison_grid([to_pil(pixels) for pixels in pictures], labels)
        save_png(folder / "comparison.png", grid, text=text)
        listing = {"recipe": self.recipe, "files": ["source.png", *names, "comparison.png"]}
        write_text_atomic(folder / "result.json", json.dumps(listing, indent=2, ensure_ascii=False) + "\n")
        return [folder / name for name in [*listing["files"], "result.json"]]

    def put_back(self, original: str | Path | Image.Image, row: int = 0) -> FilePicture:
        """Return an edit within the file that its source was read from; outside the region, the file's own numbers.

        Raises:
            InputError: The edit has no region, or the file is of a kind that a PNG cannot hold.
        """
        if self.region is None:
            raise InputError("Only edits of a region are put back into their file; give `edit` a region.")
        return put_back(read_file_picture(original), self.images[row], self.region.row(row))

    def _text(self) -> dict[str, str]:
        settings = self.recipe["source"]
        summary = (
            f"{settings['prompt']} -> {'; '.join(self.prompts)}\nSteps: {len(settings['times']) - 1}, "
            f"Seed: {settings['seed']}, Model: {settings['model']}, Size: {settings['width']}x{settings['height']}"
        )
        return {"parameters": summary, "stableflow": json.dumps(self.recipe, ensure_ascii=False)}
