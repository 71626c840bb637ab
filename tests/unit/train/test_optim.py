import math
from copy import deepcopy

import pytest
import torch
from torch import nn

from hpcai500.spec.workload import Optimizer, Schedule
from hpcai500.train.optim import Lars, build_optimizer, learning_rate, parameter_groups, peak_learning_rate


def settings(**changes) -> Optimizer:
    base = {
        "name": "sgd", "learning_rate": 0.256, "reference_batch_size": 256, "momentum": 0.875, "weight_decay": 0.1,
    }  # fmt: skip
    return Optimizer(**(base | changes))


def test_lars_matches_its_formula_worked_by_hand():
    # |w| = 5, |g| = 2, wd = 0.1, eta = 0.01: trust = 0.01 * 5 / (2 + 0.5) = 0.02
    # step 1: v = 0.5 * 0.02 * (g + 0.1 w) = 0.01 * [0.3, 2.4] = [0.003, 0.024]
    w = nn.Parameter(torch.tensor([[3.0, 4.0]]))
    lars = Lars([{"params": [w], "weight_decay": 0.1}], momentum=0.9, trust_coefficient=0.01)
    lars.param_groups[0]["lr"] = 0.5
    w.grad = torch.tensor([[0.0, 2.0]])
    lars.step()
    assert w.detach().tolist()[0] == pytest.approx([2.997, 3.976])
    # step 2, zero gradient: trust = 1, v = 0.9 * v + 0.5 * 0.1 w
    w.grad = torch.zeros(1, 2)
    lars.step()
    velocity = [0.9 * 0.003 + 0.05 * 2.997, 0.9 * 0.024 + 0.05 * 3.976]
    assert w.detach().tolist()[0] == pytest.approx([2.997 - velocity[0], 3.976 - velocity[1]], rel=1e-6)


def test_lars_leaves_spared_parameters_to_plain_momentum():
    model = nn.Sequential(nn.Linear(2, 2))
    optimizer = build_optimizer(model, settings(name="lars", decay_norm_and_bias=False), fused=True)
    bias = model[0].bias
    before = bias.detach().clone()
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert torch.allclose(bias, before - 0.1 * 1.0)


def scaled_steps(optimizer: torch.optim.Optimizer, gradients: list[torch.Tensor], scale: float) -> list[float]:
    """The one parameter after a step with each of the gradients, behind a scaler that starts at `scale`."""
    (param,) = optimizer.param_groups[0]["params"]
    optimizer.param_groups[0]["lr"] = 0.1
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    scaler.scale(torch.ones(()))  # it is made at its first use
    for gradient in gradients:
        param.grad = gradient * scaler.get_scale()
        unwritten = torch.full_like(param, math.nan)
        del unwritten  # the next tensor of this size may lie where it lay
        scaler.step(optimizer)
        scaler.update()
    return param.detach().flatten().tolist()


@pytest.mark.parametrize("nesterov", [False, True])
def test_a_first_step_that_overflows_leaves_fused_sgd_where_it_leaves_the_other(nesterov):
    gradients = [torch.full((64, 64), value) for value in (math.inf, 1.0, -0.5)]
    torch.manual_seed(0)
    model = nn.Linear(64, 64, bias=False)
    after = [
        scaled_steps(build_optimizer(copy, settings(nesterov=nesterov), fused=fused), gradients, 2.0**16)
        for copy, fused in ((deepcopy(model), True), (deepcopy(model), False))
    ]
    assert after[0] == pytest.approx(after[1], rel=1e-6)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_momentum_that_begins_at_zero_is_torch_s_own_to_the_last_bit(nesterov, fused):
    torch.manual_seed(0)
    ours = nn.Linear(64, 64, bias=False)
    theirs = deepcopy(ours)
    own = torch.optim.SGD(
        theirs.parameters(), lr=0.1, momentum=0.875, weight_decay=0.1, nesterov=nesterov, fused=fused or None
    )
    gradients = [torch.randn(64, 64) for _ in range(3)]
    built = build_optimizer(ours, settings(nesterov=nesterov), fused=fused)
    assert scaled_steps(built, gradients, 1.0) == scaled_steps(own, gradients, 1.0)


def test_sgd_goes_on_from_a_state_that_lacks_some_momentum():
    """State of a run stored before its first step, or of torch's own SGD after a step without gradients."""
    model = nn.Sequential(nn.Linear(2, 2))
    optimizer = build_optimizer(model, settings(), fused=True)
    state = optimizer.state_dict()
    assert state["state"] == {}
    optimizer.load_state_dict(state | {"state": {0: {"momentum_buffer": torch.ones(2, 2)}}})
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    kept, begun = (optimizer.state[param]["momentum_buffer"] for param in model.parameters())
    assert torch.allclose(kept, 0.875 + 1.0 + 0.1 * model[0].weight)  # at a rate of 0 the weights stay
    assert torch.allclose(begun, 1.0 + 0.1 * model[0].bias)


def test_norms_and_biases_are_spared_the_decay_only_where_asked():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    assert len(parameter_groups(model, settings())) == 1
    decayed, spared = parameter_groups(model, settings(decay_norm_and_bias=False))
    assert [p.ndim for p in decayed["params"]] == [4]
    assert [p.ndim for p in spared["params"]] == [1, 1, 1]
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)


def test_the_peak_scales_linearly_with_the_global_batch():
    assert peak_learning_rate(settings(), 1024) == pytest.approx(0.256 * 4)


def test_warm_up_is_linear_and_meets_the_peak():
    schedule = Schedule(name="cosine", warmup_epochs=2.0)
    rates = [learning_rate(schedule, 0.8, step, steps_per_epoch=4, num_epochs=10) for step in range(9)]
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.8])


def test_the_cosine_equals_torch_own_after_the_warm_up():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.8)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=32)
    schedule = Schedule(name="cosine", warmup_epochs=2.0)
    for step in range(8, 40):
        ours = learning_rate(schedule, 0.8, step, steps_per_epoch=4, num_epochs=10)
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        reference.step()


def test_the_polynomial_falls_to_the_final_fraction():
    schedule = Schedule(name="polynomial", power=2.0, final_fraction=0.1)
    half = learning_rate(schedule, 1.0, 50, steps_per_epoch=10, num_epochs=10)
    assert half == pytest.approx(0.1 + 0.9 * 0.25)
    assert math.isclose(learning_rate(schedule, 1.0, 0, 10, 10), 1.0)
