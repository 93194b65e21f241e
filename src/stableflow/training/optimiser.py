"""Muon for the matrices of the transformer's blocks, AdamW for everything else."""

from typing import Any

import torch
from torch import nn

from stableflow.training.network import Network
from stableflow.training.parallel import World, share_owned

MUON_FACTOR = 1.5  # of AdamW's learning rate


class Optimisers:
    """Both optimisers as one; Muon's work is divided among the processes, since its iterations are expensive."""

    def __init__(self, network: Network, peak: float, world: World):
        self._matrices = [
            parameter
            for name, parameter in network.transformer.named_parameters()
            if parameter.ndim == 2 and "transformer_blocks" in name and ".norm" not in name
        ]
        self._world = world
        matrices = {id(parameter) for parameter in self._matrices}
        others = [parameter for parameter in network.parameters() if id(parameter) not in matrices]
        owned = [parameter for i, parameter in enumerate(self._matrices) if i % world.size == world.rank]
        self._muon = torch.optim.Muon(
            owned,
            lr=peak * MUON_FACTOR,
            weight_decay=0.0,
            momentum=0.95,
            nesterov=True,
            adjust_lr_fn="match_rms_adamw",
        )
        self._adam = torch.optim.AdamW(others, lr=peak, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
        self._network: nn.Module = network

    def set_rate(self, rate: float) -> None:
        for optimiser, factor in ((self._muon, MUON_FACTOR), (self._adam, 1.0)):
            for group in optimiser.param_groups:
                group["lr"] = rate * factor

    def step(self) -> None:
        """Apply the averaged gradients, share the result, and clear the gradients."""
        self._muon.step()
        self._adam.step()
        share_owned(self._matrices, self._world)
        self._network.zero_grad(set_to_none=True)

    def state_dict(self) -> list[dict[str, Any]]:
        return [self._muon.state_dict(), self._adam.state_dict()]

    def regroup(self, parts: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
        """Return this process's state from those of all processes of a run with another number of them."""
        mine = range(self._world.rank, len(self._matrices), self._world.size)
        momenta = {place: parts[i % len(parts)][0]["state"][i // len(parts)] for place, i in enumerate(mine)}
        groups = [{**parts[0][0]["param_groups"][0], "params": list(range(len(mine)))}]
        return [{"state": momenta, "param_groups": groups}, parts[0][1]]

    def load(self, states: list[dict[str, Any]]) -> None:
        self._muon.load_state_dict(states[0])
        self._adam.load_state_dict(states[1])
