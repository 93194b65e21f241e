"""Carries interventions onto a model's modules by forward hooks, and off again."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from stableflow.errors import InterventionError
from stableflow.models.gate import GatedHook
from stableflow.models.hooks import (
    AttentionHook,
    BlockHook,
    Branch,
    CallHook,
    Forward,
    Hook,
    Intervention,
    Layer,
    Projection,
    ProjectionHook,
    TokenLayout,
)
from stableflow.models.turns import Turn, check_weights_are_here


class Attachment:
    """The hooks of one `attach` block: told of each forward pass, they fire once each or the pass is refused."""

    def __init__(self, hooks: Sequence[Hook]):
        self._hooks = hooks
        self._sites: list[Layer] = []  # the layer of every module that is hooked, by number
        self._visits = Counter[tuple[float, Branch]]()
        self._fired = Counter[int]()
        self._gated: list[GatedHook] = []
        self._forwards: tuple[Forward, ...] = ()

    def has(self, kind: type[Hook]) -> bool:
        """Whether there is a hook of this kind."""
        return any(isinstance(hook, kind) for hook in self._hooks)

    @property
    def every_branch(self) -> bool:
        """Whether a hook asks for the unconditional branch of passes that would do without."""
        return any(isinstance(hook, ProjectionHook) and hook.every_branch for hook in self._hooks)

    def install(self, stack: ExitStack) -> None:
        """Register every hook; leaving the stack removes them.

        PyTorch ignores a hook that comes after compilation, without a word. So what can act through the gates of a
        compiled block does; compiled blocks that need hooks run uncompiled meanwhile; all others stay compiled.
        """
        for hooks in _by_block(self._hooks):
            block = hooks[0].layer.block
            if block._compiled_call_impl is not None:
                gated = [GatedHook.make(hook) if isinstance(hook, ProjectionHook) else None for hook in hooks]
                through_gates = [hook for hook in gated if hook is not None]
                if len(through_gates) == len(hooks):
                    self._gated += through_gates
                    continue
                stack.callback(_run_uncompiled(block))
            for hook in hooks:
                self._register(hook, stack)

    def _register(self, hook: Hook, stack: ExitStack) -> None:
        if isinstance(hook, BlockHook):
            stack.callback(self._on_block(hook).remove)
        elif isinstance(hook, AttentionHook):
            stack.callback(self._on_attention(hook))
        elif isinstance(hook, CallHook):
            stack.callback(self._in_place_of(hook))
        else:
            for attention, projection in enumerate(hook.layer.projections(hook.part)):
                stack.callback(self._on_projection(hook, attention, projection).remove)

    @contextmanager
    def forward(self, t: float, layout: TokenLayout, batch: int, branches: Sequence[Branch]) -> Iterator[None]:
        """Surround one pass of the transformer; afterwards every hook must have fired exactly once."""
        self._forwards = tuple(Forward(t, self._visits[t, branch], layout, batch, branch) for branch in branches)
        self._fired.clear()
        try:
            for hook in self._gated:
                hook.prepare(self._forwards)
            yield
        finally:
            self._forwards = ()
            for hook in self._gated:
                hook.close()
        self._visits.update((t, branch) for branch in branches)
        wrong = {layer.index: self._fired[i] for i, layer in enumerate(self._sites) if self._fired[i] != 1}
        if wrong:
            raise InterventionError(
                f"The hooks of these layers fired this many times in one forward pass, instead of once: {wrong}. "
                "A transformer that was compiled as a whole, or one that routes around its projections, cannot be "
                "intervened on: compile its blocks (load(..., compile=True)), and switch step caches and layer "
                "skipping off."
            )

    def _new_site(self, layer: Layer) -> int:
        self._sites.append(layer)
        return len(self._sites) - 1

    def _current(self, site: int) -> tuple[Forward, ...]:
        if not self._forwards:
            raise InterventionError(
                "The transformer ran outside model.velocity while interventions were attached; they need to know "
                "the flow time and the token layout. Call model.velocity, or leave the attach block first."
            )
        self._fired[site] += 1
        return self._forwards

    def _on_projection(self, hook: ProjectionHook, attention: int, projection: Projection) -> RemovableHandle:
        site = self._new_site(hook.layer)

        def fire(module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
            forwards = self._current(site)
            span = slice(None) if hook.every_token else forwards[0].layout.image_span(hook.layer.kind)
            features = output[:, span, projection.columns].chunk(len(forwards))
            replacements = [
                hook.function(replace(forward, attention=attention), own) for forward, own in zip(forwards, features)
            ]
            if all(replacement is None for replacement in replacements):
                return None
            output = output.clone()
            output[:, span, projection.columns] = torch.cat(
                [own if new is None else new for own, new in zip(features, replacements)]
            )
            return output

        return projection.module.register_forward_hook(fire)

    def _on_block(self, hook: BlockHook) -> RemovableHandle:
        site = self._new_site(hook.layer)

        def fire(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            return hook.function(self._current(site)[0], hook.layer.identity(args, kwargs), output)

        return hook.layer.block.register_forward_hook(fire, with_kwargs=True)

    def _in_place_of(self, hook: CallHook) -> Callable[[], None]:
        site, block = self._new_site(hook.layer), hook.layer.block
        replaced, own = block.forward, "forward" in vars(block)  # accelerate may have put one there before us

        def forward(*args: Any, **kwargs: Any) -> Any:
            return hook.function(
                self._current(site)[0], hook.layer.identity(args, kwargs), lambda: replaced(*args, **kwargs)
            )

        def restore() -> None:
            if own:
                block.forward = replaced
            else:
                del block.forward

        block.forward = forward
        return restore

    def _on_attention(self, hook: AttentionHook) -> Callable[[], None]:
        if hook.layer.watch is None:
            raise InterventionError(
                f"Layer {hook.layer.index} cannot show its attention: its model family gives no `watch` for it."
            )
        site = self._new_site(hook.layer)

        def fire(queries: Tensor, keys: Tensor, bias: Tensor | None) -> None:
            forwards = self._current(site)
            parts = len(forwards)
            biases = [None] * parts if bias is None else bias.chunk(parts)
            for forward, q, k, added in zip(forwards, queries.chunk(parts), keys.chunk(parts), biases):
                hook.function(forward, q, k, added)

        return hook.layer.watch(fire)


def _by_block(hooks: Sequence[Hook]) -> Iterator[list[Hook]]:
    """Yield the hooks of each block, in their order."""
    grouped: dict[int, list[Hook]] = {}
    for hook in hooks:
        grouped.setdefault(id(hook.layer.block), []).append(hook)
    yield from grouped.values()


def _run_uncompiled(block: nn.Module) -> Callable[[], None]:
    """Suspend what `block.compile()` did; returns what brings it back."""
    compiled = block._compiled_call_impl
    block._compiled_call_impl = None

    def restore() -> None:
        block._compiled_call_impl = compiled

    return restore


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
