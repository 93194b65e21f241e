"""Sources of which keys and values are read beside an edit's own, so that they must be kept."""

from dataclasses import replace

from stableflow.editing.making import Recording, record_again
from stableflow.editing.run import Run
from stableflow.editing.source import Source
from stableflow.errors import InputError


def needs_store(run: Run, source: Source, recording: Recording) -> Source:
    """Return the source with keys and values of these layers, walking its path once more where it lacks them.

    Raises:
        InputError: They are not kept, because they do not fit or the call says so.
    """
    if source.store is not None and set(recording.layers) <= set(source.store.layers):
        return source
    path, nfe = source.keep(("recorded", recording), lambda: record_again(run.model, source, recording))
    run.nfe["source"] += nfe
    if path.store is None:
        raise InputError(
            f"{run.editor.name} reads keys and values of a picture beside its own, so they must be kept, and "
            'kv_memory="share" keeps none ("auto" chooses it where memory is short). Pass kv_memory="cpu" or "disk".'
        )
    return replace(source, path=path)
