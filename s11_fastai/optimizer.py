"""PyTorch's optimisers as fastai's own are: fastai's OptimWrapper, and what it leaves out."""

from typing import Any

import torch
from fastai.optimizer import OptimWrapper, detuplify_pg, set_item_pg


class TorchOptimizer(OptimWrapper):
    """fastai's OptimWrapper, for an optimiser whose weight decay is a part of the gradient, as SGD.

    What is written into `hypers` counts, as `ReduceLROnPlateau` needs it, and parameters that
    fastai exempts from weight decay, as `wd_bn_bias=False` asks, are exempt.
    """

    @property
    def hypers(self) -> list[dict[str, Any]]:
        """The settings of each group of parameters, by fastai's names."""
        return [_Hypers(self, group) for group in self.opt.param_groups]

    @torch.no_grad()
    def step(self) -> None:
        """One step of the optimiser, once its gradients are there."""
        for group in self.opt.param_groups:
            for p in group["params"]:
                if p in self.state and not self.state[p].get("do_wd", True) and p.grad is not None:
                    p.grad.sub_(p, alpha=group["weight_decay"])  # which the optimiser will add
        self.opt.step()


class _Hypers(dict):
    """Those of one group, with their names translated; setting one sets it in the group."""

    def __init__(self, wrapper: OptimWrapper, group: dict[str, Any]) -> None:
        self.group, self.names = group, wrapper.bwd_map
        plain = {key: value for key, value in group.items() if key != "params"}
        names = wrapper.fwd_map
        super().__init__({names.get(k, k): v for k, v in detuplify_pg(plain).items()})

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, value)
        set_item_pg(self.group, self.names.get(name, name), value)
