"""What an edit returns, and how it is written down."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stableflow.editing.source import Source
from stableflow.files import write_text_atomic
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

    def save(self, folder: str | Path, *, metadata: bool = True) -> list[Path]:
        """Write source.png, edit_1.png ..., comparison.png and result.json.

        Args:
            folder: Made if needed; files of the same name are replaced, each whole or not at all.
            metadata: Put the recipe into every PNG, so that a run can be repeated from any of them.

        Returns:
            The files, result.json last: where it stands, all are there.
        """
        folder = Path(folder)
        pictures = {"source.png": self.source.images[0]}
        pictures |= {f"edit_{i}.png": image for i, image in enumerate(self.images, start=1)}
        text = self._text() if metadata else None
        for name, pixels in pictures.items():
            save_png(folder / name, to_pil(pixels, self.source.alpha), text=text)
        labels = [f"source: {self.source.fingerprint.prompt}", *self.prompts]
        grid = comparison_grid([to_pil(pixels) for pixels in pictures.values()], labels)
        save_png(folder / "comparison.png", grid, text=text)
        listing = {"recipe": self.recipe, "files": [*pictures, "comparison.png"]}
        write_text_atomic(folder / "result.json", json.dumps(listing, indent=2, ensure_ascii=False) + "\n")
        return [folder / name for name in [*listing["files"], "result.json"]]

    def _text(self) -> dict[str, str]:
        settings = self.recipe["source"]
        summary = (
            f"{settings['prompt']} -> {'; '.join(self.prompts)}\nSteps: {len(settings['times']) - 1}, "
            f"Seed: {settings['seed']}, Model: {settings['model']}, Size: {settings['width']}x{settings['height']}"
        )
        return {"parameters": summary, "stableflow": json.dumps(self.recipe, ensure_ascii=False)}
