"""The attach blocks that are open on one model, and what may be open together."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from stableflow.errors import InterventionError
from stableflow.models.attachment import Attachment
from stableflow.models.hooks import (
    AttentionHook,
    BlockHook,
    Branch,
    CallHook,
    Intervention,
    Layer,
    OutsideHook,
    TokenLayout,
)
from stableflow.models.turns import Turn, check_weights_are_here


class AttachmentStack:
    """The attach blocks that are open on one model, outermost first.

    Args:
        find_layers: The model's layers, asked at every attach.
        check: Raises where interventions cannot act on the model as it is now.
    """

    def __init__(self, find_layers: Callable[[], Sequence[Layer]], check: Callable[[], None]):
        self._find_layers = find_layers
        self._check = check
        self._turn = Turn()
        self._open: list[Attachment] = []
        self._passes = 0

    def __reduce__(self) -> Any:
        """A copy would go on acting on the modules of the first model."""
        raise InterventionError(
            "A model cannot be copied or pickled: its copy would act on the first one's modules. Load it again, or "
            "copy its pipeline and wrap that: stableflow.wrap(copy.deepcopy(model.pipeline))."
        )

    @property
    def busy(self) -> bool:
        """Whether an open block has hooks."""
        return any(attachment.busy for attachment in self._open)

    @property
    def every_branch(self) -> bool:
        """Whether an open block asks for the unconditional branch of passes that would do without."""
        return any(attachment.every_branch for attachment in self._open)

    @property
    def in_pass(self) -> bool:
        """Whether a pass is under way."""
        return self._passes > 0

    @contextmanager
    def attach(self, *interventions: Intervention) -> Iterator[None]:
        """Open a block; interventions act in the order given, outer blocks before inner ones.

        Other threads wait until the block is left: what is attached would act on their pictures as well.
        """
        with self._turn:
            yield from self._attached(interventions)

    def _attached(self, interventions: Sequence[Intervention]) -> Iterator[None]:
        layers = self._find_layers()
        if layers:
            check_weights_are_here(layers[0].block)
        hooks = [hook for intervention in interventions for hook in intervention.hooks(layers)]
        if hooks:
            self._check()
        attachment = Attachment(hooks)
        self._refuse_measuring_an_approximation(attachment)
        self._refuse_watching_a_part(attachment)
        with ExitStack() as stack:
            attachment.install(stack)
            self._open.append(attachment)
            stack.callback(self._open.remove, attachment)
            yield

    def _refuse_measuring_an_approximation(self, added: Attachment) -> None:
        together = [*self._open, added]
        if all(any(attachment.has(kind) for attachment in together) for kind in (BlockHook, CallHook)):
            raise InterventionError(
                "A layer's effect cannot be measured while other layers reuse what they computed before: what is "
                "missing would be taken for the layer's effect. Leave the block of ReuseResidual before measuring."
            )

    def _refuse_watching_a_part(self, added: Attachment) -> None:
        busy = [attachment for attachment in [*self._open, added] if attachment.busy]
        if not any(attachment.has(OutsideHook) for attachment in busy):
            return
        if len(busy) > 1 or added.has(AttentionHook, BlockHook, CallHook):
            raise InterventionError(
                "A pass that computes some image tokens only shows a part of the picture to whatever else is attached. "
                "Edit with compute='all', or leave the other block first."
            )

    def divided(self, layout: TokenLayout, device: torch.device) -> TokenLayout:
        """Return the layout of the coming pass: without the tokens that an open block leaves out."""
        for attachment in self._open:
            layout = attachment.divided(layout, device)
        return layout

    @contextmanager
    def forward(
        self, t: float, layout: TokenLayout, batch: int, *, branches: Sequence[Branch] = ("conditional",)
    ) -> Iterator[None]:
        """Surround one pass of the transformer.

        Args:
            batch: Rows of one branch.
            branches: What the pass holds, stacked along its batch in this order.
        """
        with self._turn, ExitStack() as stack:
            for attachment in self._open:
                stack.enter_context(attachment.forward(t, layout, batch, branches))
            self._passes += 1
            try:
                yield
            finally:
                self._passes -= 1
