"""PyTorch's optimisers as fastai's own are: fastai's OptimWrapper, and what it leaves out."""

from collections.abc import Callable
from typing import Any

import torch
from fastai.optimizer import OptimWrapper, detuplify_pg, set_item_pg

from s11_fastai.errors import S11Error


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
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of the optimiser, once its gradients are there; `closure` is for PyTorch's."""
        for group in self.opt.param_groups:
            for p in group["params"]:
                if p in self.state and not self.state[p].get("do_wd", True) and p.grad is not None:
                    _check_adds_decay(group)
                    p.grad.sub_(p, alpha=group["weight_decay"])  # which the optimiser will add
        return self.opt.step(closure)


def _check_adds_decay(group: dict[str, Any]) -> None:
    if group.get("decoupled_weight_decay") or group.get("maximize"):
        raise S11Error(
            "parameters can be exempt from weight decay only where the optimiser adds it to the "
            "gradient, as SGD does: give wd_bn_bias=True, or an optimiser of fastai's"
        )


class _Hypers(dict):
    """Those of one group, with their names translated; setting one sets it in the group."""

    def __init__(self, wrapper: OptimWrapper, group: dict[str, Any]) -> None:
        self.group, self.names = group, wrapper.bwd_map
        names = wrapper.fwd_map
        super().__init__({names.get(k, k): v for k, v in detuplify_pg(group).items()})

    def __reduce__(self) -> tuple:
        """A copy, or what a pickle gives back, is of no group."""
        return dict, (dict(self),)

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, value)
        set_item_pg(self.group, self.names.get(name, name), value)
