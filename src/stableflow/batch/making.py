"""Making the rows of a batch: a model and a source are kept for as long as rows ask for the same."""

import gc
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from stableflow.batch.results import FAILED, MADE, Made
from stableflow.batch.rows import Row
from stableflow.editing.source import Source
from stableflow.errors import StableFlowError
from stableflow.models.base import FlowModel
from stableflow.order import Order


class RowMaker:
    """Makes rows one after another.

    Args:
        load: From an order to its model.
    """

    def __init__(self, load: Callable[[Order], FlowModel]):
        self._load = load
        self._model: tuple[str, FlowModel | StableFlowError] | None = None
        self._source: tuple[str, Source] | None = None

    def __call__(self, rows: tuple[Row, ...]) -> dict[str, Made]:
        """Return what became of each row, by its id; what goes wrong in one is told and keeps none from the next."""
        return {row.id: self._made(row) for row in rows}

    def _made(self, row: Row) -> Made:
        started = time.perf_counter()
        try:
            files, error = self._files(row), ""
        except StableFlowError as told:
            files, error = {}, str(told)
        except (torch.OutOfMemoryError, MemoryError):
            self._source = None
            files, error = {}, "The memory is full: make this row smaller (height, width), or load with --memory."
        except Exception as fault:  # a fault of ours or of a library is this row's alone
            files, error = {}, f"{type(fault).__name__}: {' '.join(str(fault).split())[:500]}"
        return Made(FAILED if error else MADE, error, round(time.perf_counter() - started, 3), files)

    def _files(self, row: Row) -> dict[str, bytes]:
        """Return the files of an order's result."""
        order = row.order
        if order is None:
            raise StableFlowError(row.error)
        order.check()
        editor = order.make_editor(self._opened(row, order))
        if self._source is None or self._source[0] != row.source():
            self._source = None  # makes room for the next
            self._source = row.source(), order.make_source(editor)
        result = order.edit(editor, self._source[1])
        with tempfile.TemporaryDirectory() as folder:
            files = result.save(folder, original=order.image if result.region is not None else None)
            return {Path(file).name: Path(file).read_bytes() for file in files}

    def _opened(self, row: Row, order: Order) -> FlowModel:
        """Return the row's model; one that cannot be loaded is tried once."""
        if self._model is None or self._model[0] != row.loading():
            self._model = self._source = None
            gc.collect()
            try:
                self._model = row.loading(), self._load(order)
            except StableFlowError as error:
                self._model = row.loading(), error
        if isinstance(self._model[1], StableFlowError):
            raise self._model[1]
        return self._model[1]
