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
    PARTS,
    AttentionHook,
    BlockHook,
    Branch,
    CallHook,
    Forward,
    Hook,
    Layer,
    OutsideHook,
    Projection,
    ProjectionHook,
    Supplied,
    TokenLayout,
)
from stableflow.models.outside import instead


class Attachment:
    """The hooks of one `attach` block: told of each forward pass, they fire once each or the pass is refused."""

    def __init__(self, hooks: Sequence[Hook]):
        self._hooks = hooks
        self._sites: list[Layer] = []  # the layer of every module that is hooked, by number
        self._visits = Counter[tuple[float, Branch]]()
        self._fired = Counter[int]()
        self._gated: list[GatedHook] = []
        self._forwards: tuple[Forward, ...] = ()

    def has(self, *kinds: type[Hook]) -> bool:
        """Whether there is a hook of one of these kinds."""
        return any(isinstance(hook, kinds) for hook in self._hooks)

    def divided(self, layout: TokenLayout, device: torch.device) -> TokenLayout:
        """Return the layout of a pass that leaves out what a hook of this block says."""
        hook = next((hook for hook in self._hooks if isinstance(hook, OutsideHook)), None)
        return layout if hook is None else replace(layout, division=hook.divide(layout, device))

    @property
    def busy(self) -> bool:
        """Whether anything is hooked at all."""
        return bool(self._hooks)

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
        elif isinstance(hook, OutsideHook):
            stack.callback(self._beside(hook))
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
            if hook.reads == "input":
                for forward, own in zip(forwards, args[0][:, span].chunk(len(forwards))):
                    hook.function(replace(forward, attention=attention), own)
                return None
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
        site = self._new_site(hook.layer)

        def forward(replaced: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            return hook.function(
                self._current(site)[0], hook.layer.identity(args, kwargs), lambda: replaced(*args, **kwargs)
            )

        return instead(hook.layer.block, forward)

    def _beside(self, hook: OutsideHook) -> Callable[[], None]:
        if hook.layer.read is None:
            raise InterventionError(
                f"Layer {hook.layer.index} cannot read tokens that are not computed: its model family gives no "
                "`outside` for it. Edit with compute='all'."
            )
        sites = [self._new_site(hook.layer) for _ in hook.layer.projections("key")]

        def supply(attention: int, like: Tensor) -> Supplied:
            forwards = [replace(forward, attention=attention) for forward in self._current(sites[attention])]
            layout = forwards[0].layout
            division = layout.division
            if division is None:
                raise InterventionError(
                    "LeaveOut acts on passes of model.velocity; a pipeline's own calls compute every token."
                )
            keys, values = (
                _rows(forwards, [hook.function(forward, part, like) for forward in forwards]) for part in PARTS
            )
            return Supplied(division, layout.joint_span("image").start, keys, values)

        return hook.layer.read(supply)

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


def _rows(forwards: Sequence[Forward], features: Sequence[Tensor]) -> Tensor:
    """The features of each branch, for each of its rows where a pass holds several branches."""
    if len(features) == 1:
        return features[0]
    return torch.cat([own.expand(forward.batch, -1, -1) for forward, own in zip(forwards, features)])


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
