"""Where the pack is."""

from pathlib import Path

PACK = Path(__file__).parents[2] / "integrations" / "comfyui"
