"""What loading can raise, turned into one message that names what is at fault and says what to do."""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from stableflow.errors import LoadError, StableFlowError
from stableflow.models.bundled import present

AGAIN = "Download it again, or check it with `stableflow doctor`."


@contextmanager
def load_errors(name: str, *, what: str = "", advice: str = AGAIN) -> Iterator[None]:
    """Turn what loading can raise into one LoadError.

    Args:
        name: What is loaded, as the user gave it.
        what: Its part and option, such as "the LoRA (lora=)"; empty for the model itself.
        advice: Where a file is damaged.
    """
    shown = f"{name}, {what}," if what else name
    try:
        yield
    except (StableFlowError, torch.OutOfMemoryError):
        raise
    except GatedRepoError as error:
        raise LoadError(
            f"{shown} is gated: its licence must be accepted on the hub before it can be downloaded.\n"
            f"1. Open https://huggingface.co/{name} in a browser, log in and accept the licence.\n"
            "2. Run `hf auth login`, or set HF_TOKEN, with a token that may read gated repositories; then try again."
        ) from error
    except RepositoryNotFoundError as error:
        raise LoadError(
            f"The hub knows no model {name!r}{what and f' ({what})'}, or it is private. Check the spelling; for a "
            "private model set HF_TOKEN."
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise LoadError(
            f"{shown} is not in the local cache and cannot be fetched (offline, or the hub cannot be reached). Connect "
            f"once without --offline, or pass a local folder. Bundled and always there: {', '.join(present())}."
        ) from error
    except (HfHubHTTPError, HFValidationError) as error:
        raise LoadError(f"The hub refused {shown.rstrip(',')}: {first_line(error)}") from error
    except pickle.UnpicklingError as error:
        raise LoadError(f"{shown} is a pickle, which could run code; only .safetensors and .gguf are read.") from error
    except Exception as error:  # the libraries raise what they like on damaged files
        raise LoadError(
            f"{shown} could not be loaded; a file is missing, damaged or of another model: {first_line(error)} {advice}"
        ) from error


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, its class where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def some(names: list[str], most: int = 3) -> str:
    """Return the first few names for a message, and how many there are."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
