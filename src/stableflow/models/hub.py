"""Whether the hub can be reached: asked once, so that nobody waits for its client's retries."""

from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.utils import get_session

PATIENCE = 5.0  # seconds


def without_hub(offline: bool, *locations: str | Path | None) -> bool:
    """Return whether to do with the local cache: as asked, or as one location is a hub id and the hub is out of reach.

    Args:
        offline: The user's wish.
        locations: Hub ids and paths that are to be loaded; None is none.
    """
    ids = [
        place for place in locations if isinstance(place, str) and place.count("/") == 1 and not Path(place).exists()
    ]
    return offline or constants.HF_HUB_OFFLINE or bool(ids and not _reachable())


def _reachable() -> bool:
    try:
        get_session().head(constants.ENDPOINT, timeout=PATIENCE)
    except Exception:  # the client's own kinds differ by version
        return False
    return True
