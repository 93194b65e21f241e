"""Carries interventions onto a model's modules by forward hooks, and off again."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from stableflow.errors import InterventionError
from stableflow.models.base import (
    AttentionHook,
    BlockHook,
    Forward,
    Hook,
    Intervention,
    Layer,
    ProjectionHook,
    TokenLayout,
)


class Attachment:
    """The hooks of one `attach` block: told of each forward pass, they fire once each or the pass is refused."""

    def __init__(self, hooks: Sequence[Hook]):
        self._hooks = hooks
        self._visits = Counter[float]()
        self._fired = Counter[int]()
        self._forward: Forward | None = None

    def install(self, stack: ExitStack) -> None:
        """Register every hook; leaving the stack removes them."""
        for number, hook in enumerate(self._hooks):
            if isinstance(hook, BlockHook):
                stack.callback(self._on_block(number, hook).remove)
            elif isinstance(hook, AttentionHook):
                stack.callback(self._on_attention(number, hook))
            else:
                stack.callback(self._on_projection(number, hook).remove)

    @contextmanager
    def forward(self, t: float, layout: TokenLayout, batch: int) -> Iterator[None]:
        """Surround one pass of the transformer; afterwards every hook must have fired exactly once."""
        self._forward = Forward(t, self._visits[t], layout, batch)
        self._fired.clear()
        try:
            yield
        finally:
            self._forward = None
        self._visits[t] += 1
        wrong = {hook.layer.index: self._fired[i] for i, hook in enumerate(self._hooks) if self._fired[i] != 1}
        if wrong:
            raise InterventionError(
                f"The hooks of these layers fired this many times in one forward pass, instead of once: {wrong}. "
                "A model compiled before attaching, or one that routes around its projections, cannot be intervened "
                "on: attach before torch.compile, and switch step caches and layer skipping off."
            )

    def _current(self, number: int) -> Forward:
        if self._forward is None:
            raise InterventionError(
                "The transformer ran outside model.velocity while interventions were attached; they need to know "
                "the flow time and the token layout. Call model.velocity, or leave the attach block first."
            )
        self._fired[number] += 1
        return self._forward

    def _on_projection(self, number: int, hook: ProjectionHook) -> RemovableHandle:
        projection = hook.layer.projection(hook.part)

        def fire(module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
            forward = self._current(number)
            span = forward.layout.image_span(hook.layer.kind)
            replacement = hook.function(forward, output[:, span, projection.columns])
            if replacement is None:
                return None
            output = output.clone()
            output[:, span, projection.columns] = replacement
            return output

        return projection.module.register_forward_hook(fire)

    def _on_block(self, number: int, hook: BlockHook) -> RemovableHandle:
        def fire(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            return hook.function(self._current(number), hook.layer.identity(args, kwargs), output)

        return hook.layer.block.register_forward_hook(fire, with_kwargs=True)

    def _on_attention(self, number: int, hook: AttentionHook) -> Callable[[], None]:
        if hook.layer.watch is None:
            raise InterventionError(
                f"Layer {hook.layer.index} cannot show its attention: its model family gives no `watch` for it."
            )
        return hook.layer.watch(lambda queries, keys: hook.function(self._current(number), queries, keys))


class AttachmentStack:
    """The attach blocks that are open on one model, outermost first."""

    def __init__(self, find_layers: Callable[[], Sequence[Layer]]):
        self._find_layers = find_layers
        self._open: list[Attachment] = []

    @contextmanager
    def attach(self, *interventions: Intervention) -> Iterator[None]:
        """Open a block; interventions act in the order given, outer blocks before inner ones."""
        layers = self._find_layers()
        hooks = [hook for intervention in interventions for hook in intervention.hooks(layers)]
        attachment = Attachment(hooks)
        with ExitStack() as stack:
            attachment.install(stack)
            self._open.append(attachment)
            stack.callback(self._open.remove, attachment)
            yield

    @contextmanager
    def forward(self, t: float, layout: TokenLayout, batch: int) -> Iterator[None]:
        """Surround one pass of the transformer."""
        with ExitStack() as stack:
            for attachment in self._open:
                stack.enter_context(attachment.forward(t, layout, batch))
            yield
