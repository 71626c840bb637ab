"""The bounds beyond which a value is off, against scipy, by hand and by simulation."""

import numpy as np
import pytest
from scipy import stats

from hpcai500.validate.judge.bounds import (
    PeerRule,
    beyond_noise,
    centre_and_scale,
    consistency,
    factor,
    relative_bound,
    shortfall,
)
from hpcai500.validate.judge.reading import Key


@pytest.mark.parametrize("number", [3, 4, 9, 10, 57, 1_000])
def test_the_scale_is_scipy_s_mad_with_the_factor_for_few_values(number):
    values = np.random.default_rng(number).normal(50, 3, number)
    centre, scale = centre_and_scale(values)
    assert centre == pytest.approx(np.median(values))
    raw = stats.median_abs_deviation(values, scale="normal")
    assert scale / raw == pytest.approx(consistency(number) / 1.4826, rel=1e-4)


@pytest.mark.parametrize("number", [3, 4, 5, 6, 7, 8, 9, 12, 30, 200])
def test_the_scale_of_normal_noise_is_its_standard_deviation_on_average(number):
    noise = np.random.default_rng(1).normal(0, 1, (20_000, number))
    away = np.abs(noise - np.median(noise, axis=1, keepdims=True))
    assert consistency(number) * np.median(away, axis=1).mean() == pytest.approx(1, abs=0.025)


@pytest.mark.parametrize(("number", "bound"), [(1, 3.5), (4, 3.5), (8, 3.66), (100, 4.26), (5_000, 5.07)])
def test_the_bound_grows_with_the_number_of_values(number, bound):
    assert factor(number) == pytest.approx(max(3.5, stats.norm.ppf(1 - 0.001 / number)), rel=1e-9)
    assert factor(number) == pytest.approx(bound, abs=0.01)


def share_of_alarms(number, deviation, relative, repeats):
    """How often any of `number` healthy nodes of normal noise is off in one metric."""
    values = np.random.default_rng(number).normal(1, deviation, (repeats, number))
    alarms = 0
    for row in values:
        centre, scale = centre_and_scale(row)
        is_off = beyond_noise(row, centre, scale, "higher") & (shortfall(row, centre, "higher") > relative)
        alarms += bool(is_off.any())
    return alarms / repeats


@pytest.mark.parametrize(
    ("number", "deviation", "relative", "most"),
    [
        (3, 0.01, 0.05, 0.001),  # noise of a fifth of the bound: none to speak of
        (8, 0.01, 0.05, 0.001),
        (100, 0.01, 0.05, 0.001),
        (3, 0.02, 0.05, 0.02),  # two fifths: a warning in one of fifty metrics at most
        (16, 0.02, 0.05, 0.035),
        (3, 0.02, 0.10, 0.001),  # and no failure
        (16, 0.02, 0.10, 0.001),
        (100, 0.10, 0.05, 0.012),  # far beyond the bound: what the statistical bound alone lets through
        (3_000, 0.10, 0.05, 0.012),
    ],
)
def test_healthy_nodes_raise_as_few_false_alarms_as_documented(number, deviation, relative, most):
    assert share_of_alarms(number, deviation, relative, 300 if number > 1_000 else 2_000) <= most


def test_a_rate_that_is_gone_is_off_among_rates_that_spread():
    """Six links of a busy testbed, one of them through a token bucket: k s is more than the median."""
    rates = np.asarray([1.9e9, 0.7e9, 1.2e9, 2.4e9, 0.024e9, 0.9e9])
    centre, scale = centre_and_scale(rates)
    assert factor(6) * scale > centre
    assert beyond_noise(rates, centre, scale, "higher").tolist() == [False] * 4 + [True, False]
    assert not beyond_noise(rates, centre, scale, "lower").any()


def test_the_shortfall_is_a_part_of_the_reference_on_the_worse_side():
    values = np.asarray([90.0, 100.0, 120.0])
    assert shortfall(values, 100.0, "higher") == pytest.approx([0.1, 0, -0.2])
    assert shortfall(values, 100.0, "lower") == pytest.approx([-0.1, 0, 0.2])
    assert shortfall(values, 100.0, "same") == pytest.approx([0.1, 0, 0.2])


def test_the_site_s_last_rule_goes_before_the_defaults_and_health_has_none():
    rules = (PeerRule(metric="gemm_*", relative=0.3), PeerRule(metric="micro/gemm_bf16_*", relative=0.02))
    assert relative_bound(Key("micro", "gemm_bf16_flops", 1), rules) == 0.02
    assert relative_bound(Key("micro", "gemm_fp32_flops", 1), rules) == 0.3
    assert relative_bound(Key("micro", "copy_bytes_per_sec", 1), rules) == 0.05
    assert relative_bound(Key("links", "link_latency_sec", 2), ()) == 0.25
    assert relative_bound(Key("health", "temperature", 1), ()) is None
    assert relative_bound(Key("collectives", "all_reduce_8_sec", 4), ()) == 0.25
    assert relative_bound(Key("collectives", "all_reduce_8_bus_bytes_per_sec", 4), ()) == 0.10
