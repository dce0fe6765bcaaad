"""What is optimised, at which rates."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from diffsampler.errors import check_non_negative, check_positive
from diffsampler.losses import Objective
from diffsampler.policy import Policy


@dataclass(frozen=True)
class Optimisation:
    """Adam's settings for the groups of parameters, as in `SamplerModule`; the defaults of all who take them."""

    lr: float
    flow_lr: float = 1e-2
    log_z_lr: float = 1e-1
    final_lr_factor: float = 0.01
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        for name in ("lr", "flow_lr", "log_z_lr", "final_lr_factor"):
            check_positive(name, getattr(self, name))
        check_non_negative("weight_decay", self.weight_decay)

    def groups(self, policy: Policy, loss: Objective) -> list[dict[str, Any]]:
        """Of control and process, of the flow, and of log Z.

        What a loss does not train is in its group all the same: a run may go on with another loss.
        """
        controls = [policy.control, policy.process, loss, policy.backward_control]
        flow = [parameter for part in (policy.flow, policy.log_z_network) if part for parameter in part.parameters()]
        return [
            {
                "params": [parameter for part in controls if part is not None for parameter in part.parameters()],
                "lr": self.lr,
                "weight_decay": self.weight_decay,
            },
            {"params": flow, "lr": self.flow_lr, "weight_decay": self.weight_decay},
            {"params": [policy.log_z], "lr": self.log_z_lr, "weight_decay": 0.0},
        ]

    def factor(self, progress: float) -> float:
        """On all rates, for the fraction of training that is done: half a cosine."""
        half_cosine = 0.5 * (1 + math.cos(math.pi * progress))
        return self.final_lr_factor + (1 - self.final_lr_factor) * half_cosine

    def renew(self, optimizer: torch.optim.Optimizer, groups: list[dict[str, Any]], factor: float) -> None:
        """Give an optimiser these settings: a resumed one brings the old ones along."""
        for group, options in zip(optimizer.param_groups, groups, strict=True):
            group["initial_lr"] = options["lr"]
            group["lr"] = options["lr"] * factor
            group["weight_decay"] = options["weight_decay"]


def untrained(policy: Policy, loss: Objective) -> Iterator[nn.Parameter]:
    """What a loss leaves as it is."""
    if policy.flow is not None and not loss.uses_flow:
        yield from policy.flow.parameters()
    if not loss.uses_log_z:
        yield policy.log_z
        if policy.is_of_family:
            yield from policy.log_z_network.parameters()
