"""PyTorch's SGD, with what fastai's own optimisers can do."""

import copy
import pickle
from functools import partial

import pytest
import torch
from fastai.callback.tracker import ReduceLROnPlateau
from fastai.optimizer import OptimWrapper
from torch import nn

from s11_fastai import S11ResNet, get_dls, s11_learner
from s11_fastai.errors import S11Error
from s11_fastai.optimizer import TorchOptimizer


def test_writing_a_setting_changes_it_in_the_optimiser():
    parameters = [[nn.Parameter(torch.ones(1))], [nn.Parameter(torch.ones(1))]]
    opt = TorchOptimizer(parameters, opt=torch.optim.AdamW, lr=0.1)
    for group in opt.hypers:
        group["lr"], group["mom"], group["wd"] = 0.2, 0.8, 0.3
    for group in opt.opt.param_groups:
        assert (group["lr"], group["betas"], group["weight_decay"]) == (0.2, (0.8, 0.999), 0.3)
    assert opt.hypers == OptimWrapper(opt=opt.opt).hypers


def test_the_lr_falls_on_a_plateau(images, capsys):
    learn = s11_learner(get_dls(images, bs=20, device="cpu"), S11ResNet(3, 1))
    with learn.no_bar(), learn.no_logging():
        learn.fit(3, 0.1, cbs=ReduceLROnPlateau(min_delta=9, patience=1, factor=4))
    assert [group["lr"] for group in learn.opt.opt.param_groups] == [0.1 / 16]
    assert "reducing lr to 0.025" in capsys.readouterr().out


@pytest.mark.parametrize("exempt", [False, True])
def test_biases_and_normalisation_can_be_exempt_from_weight_decay(images, exempt):
    dls = get_dls(images, bs=20, device="cpu")
    learn = s11_learner(dls, S11ResNet(3, 1), wd=0.5, wd_bn_bias=not exempt)
    learn.create_opt()
    learn.opt.set_hypers(lr=0.1, wd=0.5)
    for p in learn.model.parameters():
        p.grad = torch.zeros_like(p)
    before = {name: p.detach().clone() for name, p in learn.model.named_parameters()}
    learn.opt.step()
    for name, p in learn.model.named_parameters():
        decays = p.ndim > 1 or not exempt
        step = 0.1 * 0.5 * 1.9 * decays  # the first one of Nesterov's momentum 0.9
        torch.testing.assert_close(p.detach(), before[name] * (1 - step), msg=name)


def test_where_decay_is_none_of_the_gradient_nothing_can_be_exempt(images):
    opt = partial(TorchOptimizer, opt=torch.optim.AdamW)
    dls = get_dls(images, bs=20, device="cpu")
    learn = s11_learner(dls, S11ResNet(3, 1), wd_bn_bias=False, opt_func=opt)
    refused = pytest.raises(S11Error, match="give wd_bn_bias=True, or an optimiser of fastai's")
    with learn.no_bar(), learn.no_logging(), refused:
        learn.fit(1, 0.01)
    decayed = s11_learner(dls, S11ResNet(3, 1), wd_bn_bias=True, opt_func=opt)
    with decayed.no_bar(), decayed.no_logging():
        decayed.fit(1, 0.01)


def test_what_is_copied_is_a_plain_dict():
    opt = TorchOptimizer([nn.Parameter(torch.ones(1))], opt=torch.optim.SGD, lr=0.1)
    for copied in (copy.deepcopy(opt.hypers), pickle.loads(pickle.dumps(opt.hypers))):
        assert copied == opt.hypers
        assert type(copied[0]) is dict
