import itertools
import math
import statistics

import numpy as np
import pytest
from scipy import special, stats

from hpcai500.score.ranking.bootstrap import bootstrap_interval
from hpcai500.score.ranking.many_rank_ranges import ranges_of_many
from hpcai500.score.ranking.rank_ranges import undecided_ranks
from hpcai500.score.ranking.statistics import (
    Summary,
    mlperf_score,
    outliers,
    p_not_faster,
    runs_needed,
    summarize,
    survival_median,
)
from hpcai500.score.ranking.student import quantile, student_quantile, tail


def test_a_summary_agrees_with_numpy_and_scipy():
    values = [61.0, 63.0, 64.0, 62.0, 66.5]
    summary = summarize(values, bootstrap=True)
    assert summary.mean == pytest.approx(np.mean(values))
    assert summary.median == 63.0
    assert summary.standard_deviation == pytest.approx(np.std(values, ddof=1))
    assert summary.coefficient_of_variation == pytest.approx(stats.variation(values, ddof=1))
    interval = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    assert (summary.interval_low, summary.interval_high) == pytest.approx(interval)
    assert min(values) < summary.bootstrap_low < summary.mean < summary.bootstrap_high < max(values)


def test_students_t_is_that_of_the_printed_tables():
    # Student's t, 0.975: any statistics textbook's table.
    table = {2: 12.706, 3: 4.303, 5: 2.776, 10: 2.262, 30: 2.045}
    assert {n: round(student_quantile(n), 3) for n in table} == table


def test_students_sleep_data_give_the_interval_that_r_gives():
    # R: t.test(with(sleep, extra[group == 2] - extra[group == 1]))$conf.int is 0.7001142 2.4598858
    differences = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]
    summary = summarize(differences)
    assert summary.mean == pytest.approx(1.58)
    assert (summary.interval_low, summary.interval_high) == pytest.approx((0.7001142, 2.4598858), abs=1e-7)


def test_the_bootstrap_agrees_with_one_written_out_by_hand():
    values = np.array([1.1, 1.3, 2.2, 2.9, 4.8, 9.7, 1.9, 2.4])
    rng = np.random.default_rng(1)
    means = np.sort(rng.choice(values, (200_000, len(values))).mean(axis=1))
    normal = statistics.NormalDist()
    bias = normal.inv_cdf((np.sum(means < values.mean()) + np.sum(means == values.mean()) / 2) / len(means))
    left_out = (values.sum() - values) / (len(values) - 1)
    away = left_out.mean() - left_out
    acceleration = np.sum(away**3) / (6 * np.sum(away**2) ** 1.5)
    levels = [
        normal.cdf(bias + (bias + z) / (1 - acceleration * (bias + z)))
        for z in (normal.inv_cdf(0.025), normal.inv_cdf(0.975))
    ]
    assert bootstrap_interval(list(values)) == pytest.approx(tuple(np.quantile(means, levels)), rel=0.02)


@pytest.mark.parametrize("count", [5, 7, 8, 21, 130])
def test_the_bootstrap_is_that_of_scipy_at_every_size_but_for_rounding(count):
    for scale in (1e-3, 1.0, 1e15):
        values = np.random.default_rng(count).normal(scale, scale / 30, count)
        expected = stats.bootstrap(
            (values,), np.mean, n_resamples=9_999, method="BCa", rng=np.random.default_rng(500)
        ).confidence_interval
        interval = pytest.approx((expected.low, expected.high), rel=1e-14)  # releases sum in another order
        assert bootstrap_interval(list(values)) == interval


@pytest.mark.parametrize("values", [[5.0, 5.0, 5.0, 5.0, 5.0], [0.0] * 6])
def test_identical_values_have_an_interval_of_no_width(values):
    summary = summarize(values, bootstrap=True)
    assert (
        summary.interval_low == summary.interval_high == summary.bootstrap_low == summary.bootstrap_high == values[0]
    )
    assert summary.coefficient_of_variation == (0.0 if values[0] else None)
    assert outliers(values) == []


def test_few_values_have_no_bootstrap_and_one_has_no_spread():
    assert summarize([1, 2, 3, 4], bootstrap=True).bootstrap_low is None
    one = summarize([3.0], bootstrap=True)
    assert (one.mean, one.median, one.standard_deviation, one.interval_low) == (3.0, 3.0, None, None)
    assert summarize([]) == Summary(num_runs=0)


def test_runs_that_never_got_there_are_counted_and_not_averaged():
    summary = summarize([5, None, 7])
    assert (summary.num_runs, summary.num_censored, summary.mean, summary.median) == (2, 1, 6, 7)
    never = summarize([None, None])
    assert (never.num_runs, never.num_censored, never.mean, never.median) == (0, 2, None, None)


# Freireich and others (1963): weeks of remission; "+" was still in remission when last seen.
SIX_MP = "6,6,6,6+,7,9+,10,10+,11+,13,16,17+,19+,20+,22,23,25+,32+,32+,34+,35+"
PLACEBO = [1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23]


def test_the_median_of_censored_times_is_the_published_one():
    values = [None if week.endswith("+") else float(week) for week in SIX_MP.split(",")]
    limits = [float(week.rstrip("+")) for week in SIX_MP.split(",")]
    assert survival_median(values, limits) == 23  # as printed in every text on survival, and by R's survfit
    assert survival_median([float(week) for week in PLACEBO]) == 8


def test_the_median_is_half_way_where_just_half_got_there():
    assert survival_median([2, 4]) == 3
    assert survival_median([1, 2, 4, None]) == 3
    assert survival_median([1, 2, None, None]) == 2
    assert survival_median([1, None, None]) is None


def test_mlperfs_score_drops_the_fastest_and_the_slowest():
    assert mlperf_score([10.0, 14.0, 11.0, 30.0, 12.0]) == pytest.approx((11 + 12 + 14) / 3)
    assert mlperf_score([10.0, None, 11.0, 12.0]) == pytest.approx(11.5)  # the run that did not converge is dropped
    assert mlperf_score([10.0, None, 11.0, None, 12.0]) is None
    assert mlperf_score([10.0, 11.0]) is None


def test_outliers_are_those_of_the_modified_z_score():
    # NIST/SEMATECH handbook 1.3.5.17's data: median 2.45, MAD 0.15, so 8.2 scores 0.6745 * 5.75 / 0.15.
    found = outliers([2.1, 2.6, 2.4, 2.5, 2.3, 2.1, 2.3, 2.6, 8.2, 8.3])
    assert [one.position for one in found] == [8, 9]
    assert found[0].score == pytest.approx(25.856, abs=1e-3)
    assert outliers([2.1, 2.6, 2.4, 2.5]) == []
    assert outliers([1.0, 9.0, 1.0]) == []  # three values name no one


def test_an_outlier_is_found_where_most_values_are_equal():
    (found,) = outliers([4, 4, 4, 4, 4, 9])
    assert (found.position, found.score) == (5, pytest.approx(5 / (1.253314 * 5 / 6)))


@pytest.mark.parametrize(
    ("variation", "expected"),
    [
        (0.0, 2),
        (
            0.0112,
            3,
        ),  # image classification of AIBench: 12.706 * 0.0112 / sqrt 2 = 10 %, 4.303 * 0.0112 / sqrt 3 = 2.8 %
        (0.019, 3),  # its learning to rank: 4.303 * 0.019 / sqrt 3 = 4.7 %
        (0.38, 225),  # its widest: 1.97 * 0.38 / 0.05, squared
    ],
)
def test_the_runs_that_an_interval_of_five_percent_takes(variation, expected):
    found = runs_needed(variation)
    assert found == pytest.approx(expected, abs=1 if expected > 100 else 0)
    assert stats.t.ppf(0.975, found - 1) * variation / math.sqrt(found) <= 0.05
    assert found == 2 or stats.t.ppf(0.975, found - 2) * variation / math.sqrt(found - 1) > 0.05


def test_too_many_runs_are_none():
    assert runs_needed(10.0) is None


def test_the_one_sided_test_counts_orders_exactly():
    # All three below all four: one order of 35.
    assert p_not_faster([1, 2, 3], [4, 5, 6, 7]) == pytest.approx(1 / 35)
    assert p_not_faster([4, 5, 6], [4, 5, 6, 7]) > 0.25
    assert p_not_faster([8, 9, 10], [4, 5, 6, 7]) == pytest.approx(1)
    assert p_not_faster([5, 5], [5, 5]) == 1.0
    assert p_not_faster([], [1.0]) is None


def test_the_one_sided_test_knows_one_run_against_many_and_many_against_one():
    # Of five places the one run is as likely to stand at each.
    assert p_not_faster([1], [2, 3, 4, 5]) == pytest.approx(1 / 5)
    assert p_not_faster([3], [1, 2, 4, None]) == pytest.approx(3 / 5)
    assert p_not_faster([1, 2], [3]) == pytest.approx(1 / 3)
    assert p_not_faster([1], [2]) == pytest.approx(1 / 2)


@pytest.mark.parametrize("of_180", range(1, 181))
def test_the_mean_of_equal_values_is_that_value_and_their_spread_is_none(of_180):
    for count in range(1, 20):
        found = summarize([of_180 / 180] * count)
        assert (found.mean, found.standard_deviation or 0.0) == (of_180 / 180, 0.0)


def test_the_one_sided_test_agrees_with_a_count_of_its_own_where_values_tie():
    values, reference = [3, 4, 4, None], [4, 5, 5, 6, None]
    pooled = [math.inf if v is None else v for v in (*values, *reference)]

    def statistic(chosen):
        others = [pooled[i] for i in range(9) if i not in chosen]
        return sum((pooled[i] > b) + (pooled[i] == b) / 2 for i in chosen for b in others)

    observed = statistic((0, 1, 2, 3))
    orders = [statistic(chosen) <= observed for chosen in itertools.combinations(range(9), 4)]
    assert p_not_faster(values, reference) == pytest.approx(sum(orders) / len(orders))


def test_many_runs_are_tested_by_the_normal_approximation():
    rng = np.random.default_rng(0)
    reference = list(rng.normal(60, 2, 40))
    fast, same = list(rng.normal(55, 2, 30)), list(rng.normal(60, 2, 30))
    assert p_not_faster(fast, reference) < 1e-6
    assert p_not_faster(same, reference) > 0.05


def test_entries_that_the_data_cannot_decide_share_a_range_of_ranks():
    groups = [[100, 101, 102, 99, 100], [80, 84, 79, 81, 83], [80, 82, 78, 83, 81], [50, 51, 49, 50, 52]]
    summaries = [summarize(group) for group in groups]
    assert undecided_ranks(summaries) == [(1, 1), (2, 3), (2, 3), (4, 4)]
    # By Welch's test of SciPy, worst pair of the sure ones, times Holm's largest factor.
    sure = stats.ttest_ind(groups[1], groups[3], equal_var=False).pvalue
    assert 3 * sure < 0.05 < stats.ttest_ind(groups[1], groups[2], equal_var=False).pvalue


def test_a_pair_that_only_a_single_test_would_decide_is_left_undecided_among_many():
    rng = np.random.default_rng(3)
    pair = [[10.0, 10.4, 10.8, 10.2], [9.3, 9.9, 9.6, 9.5]]
    p = stats.ttest_ind(*pair, equal_var=False).pvalue
    assert 0.05 / 9 < p < 0.05
    assert undecided_ranks([summarize(group) for group in pair]) == [(1, 1), (2, 2)]
    others = [list(rng.normal(9.4, 3, 4)) for _ in range(8)]
    summaries = sorted((summarize(group) for group in (*pair, *others)), key=lambda one: -one.mean)
    assert undecided_ranks(summaries)[[s.mean for s in summaries].index(np.mean(pair[0]))][1] > 2


def test_the_ranges_of_many_entries_are_those_of_holm_over_every_pair_of_scipys_welch_test():
    rng = np.random.default_rng(8)
    sets = [rng.normal(rng.uniform(1, 1.5), 0.02, size) for size in [2, 3, 5, 8] * 15]
    groups = sorted(sets, key=lambda group: -group.mean())
    expected = []
    for index, group in enumerate(groups):
        pairs = sorted(
            (stats.ttest_ind(group, other, equal_var=False).pvalue, position)
            for position, other in enumerate(groups)
            if position != index
        )
        falls = itertools.takewhile(lambda item: item[1][0] <= 0.05 / (59 - item[0]), enumerate(pairs))
        sure = [position for _, (_, position) in falls]
        worse = sum(position > index for position in sure)
        expected.append((1 + len(sure) - worse, 60 - worse))
    assert undecided_ranks([summarize(list(group)) for group in groups]) == expected
    assert len(set(expected)) > 20


def test_one_run_decides_nothing_and_equal_runs_decide_everything():
    assert undecided_ranks([summarize([9.0]), summarize([5.0, 5.1, 5.2]), summarize([1.0])]) == [(1, 3)] * 3
    same = [summarize([3.0, 3.0]), summarize([2.0, 2.0]), summarize([2.0, 2.0])]
    assert undecided_ranks(same) == [(1, 1), (2, 3), (2, 3)]
    assert undecided_ranks([summarize([9.0])]) == [(1, 1)]
    assert undecided_ranks([]) == []


@pytest.mark.parametrize("freedom", [1, 1.37, 2, 3, 4, 7.5, 29, 99, 101, 1000.25, 99_999])
def test_students_t_is_scipys_to_rounding(freedom):
    for t in (0.0, 0.01, 0.1, 1.0, 1.95, 2.8, 7.0, 40.0, 1e3):
        assert tail(t, freedom) == pytest.approx(
            special.stdtr(freedom, -t), rel=1e-13 if freedom * t < 1e3 else 1e-10
        )
    for upper in (0.25, 0.025, 0.025 / 30, 1e-7):
        # SciPy 1.15 is itself off by 1e-11
        assert quantile(upper, freedom) == pytest.approx(-special.stdtrit(freedom, upper), rel=1e-10)


def test_students_t_has_its_closed_forms():
    """One degree of freedom is Cauchy's distribution; for two, t = (1 - 2p) sqrt(2 / (4p (1 - p)))."""
    for upper in (0.25, 0.025, 1e-7):
        assert quantile(upper, 1) == pytest.approx(1 / math.tan(math.pi * upper), rel=1e-13)
        assert quantile(upper, 2) == pytest.approx(
            (1 - 2 * upper) * math.sqrt(2 / (4 * upper * (1 - upper))), rel=1e-13
        )


def test_the_median_of_censored_times_is_that_of_scipys_estimate():
    rng = np.random.default_rng(1)
    for count in range(1, 40):
        values = [float(value) if value < 9 else None for value in rng.integers(1, 13, count)]
        limits = [float(limit) for limit in rng.integers(1, 13, count)]
        known = [value for value in values if value is not None]
        right = [limit for value, limit in zip(values, limits, strict=True) if value is None]
        if not known or not right:
            continue
        curve = stats.ecdf(stats.CensoredData(uncensored=known, right=right)).sf
        left = {time: float(curve.evaluate(time)) for time in sorted(set(known))}
        below = [time for time in left if left[time] < 0.5 - 1e-12]
        level = [time for time in left if math.isclose(left[time], 0.5)]
        expected = (level[0] + (below or level)[0]) / 2 if level else below[0] if below else None
        assert survival_median(values, limits) == expected


def test_few_entries_have_the_ranges_that_they_have_among_many():
    rng = np.random.default_rng(11)
    for count in (2, 5, 17, 32):
        sets = [rng.normal(rng.uniform(1, 1.3), 0.02, rng.integers(1, 7)) for _ in range(count)]
        sets += [np.array([2.0, 2.0]), np.array([2.0, 2.0, 2.0])][: 32 - count]
        summaries = sorted((summarize(list(group)) for group in sets), key=lambda one: -one.mean)
        assert undecided_ranks(summaries) == ranges_of_many(summaries)
