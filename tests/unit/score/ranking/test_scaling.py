"""How figures move with a system's size, and an order with the exponent."""

import json

import pytest

from hpcai500.report.ranking.page_data import page_data
from hpcai500.report.ranking.terminal import render as ranking_text
from hpcai500.score.ranking.collection import collect
from hpcai500.score.ranking.document import ranking_document
from hpcai500.score.ranking.ranking import rank
from hpcai500.score.ranking.scaling import Size, scaling, sensitivity


def size(world_size, batch, flops, nodes=1, backend="torch"):
    return Size(("box", "GPU", backend, "bf16"), f"{world_size} on {nodes}", world_size, nodes, batch, flops)


def test_strong_and_weak_scaling_are_told_apart():
    strong, weak = scaling([size(1, 64, 1.0), size(2, 64, 1.8), size(4, 256, 3.6)])
    assert (strong.kind, strong.batch_size) == ("strong", 64)
    assert [(p.world_size, p.speed_up, p.efficiency) for p in strong.points] == [(1, 1.0, 1.0), (2, 1.8, 0.9)]
    assert (weak.kind, weak.batch_size) == ("weak", 64)
    assert [(p.world_size, p.efficiency) for p in weak.points] == [(1, 1.0), (4, 0.9)]


def test_scaling_without_a_known_batch_says_so_and_one_size_is_no_series():
    (series,) = scaling([size(1, None, 1.0), size(2, None, 1.5)])
    assert (series.kind, series.batch_size) == ("unknown", None)
    assert scaling([size(2, 64, 1.0), size(2, 32, 1.0)]) == ()


def test_scaling_is_found_among_the_entries_of_a_list(add, results):
    add(total_sec=10.0)
    add(total_sec=6.0, procs_per_node=2)
    add(total_sec=6.0, procs_per_node=2, system="other")
    (ranked,) = rank(collect([results]).runs)
    (series,) = ranked.scaling
    assert (series.system, series.kind, series.batch_size) == ("testbox", "strong", 64)
    assert series.points[1].speed_up == pytest.approx(10 / 6)


def test_the_order_moves_with_the_exponent():
    # 100 at quality 0.8 of target 1 against 50 at 1: 100 * 0.8**n falls below 50 from n = 4 on (0.8**3 = 0.512).
    found = sensitivity([[(100.0, 0.8)], [(50.0, 1.0)]], 1.0, range(1, 6))
    assert found.ranks == ((1, 1, 1, 2, 2), (2, 2, 2, 1, 1))
    assert sensitivity([[(1.0, 1.0)], [(1.0, 1.0)]], 1.0, [1]).ranks == ((1,), (1,))


def test_entries_of_equal_runs_stay_equal_at_every_exponent():
    found = sensitivity([[(3.3, 168 / 180)] * 5, [(3.3, 168 / 180)] * 11], 0.85, range(1, 21))
    assert found.ranks == ((1,) * 20,) * 2


def test_series_that_differ_in_a_setting_or_in_code_say_so(add, results):
    for setting in (True, False):
        for ranks, seconds in ((1, 10.0), (2, 6.0)):
            overrides = {"execution.channels_last": setting}
            add(total_sec=seconds, procs_per_node=ranks, overrides=overrides, unranked=False)
    (ranked,) = rank(collect([results]).runs)
    first, second = ranked.scaling
    assert (first.settings, second.settings) == (
        ("execution.channels_last=False",),
        ("execution.channels_last=True",),
    )
    text = ranking_text(ranking_document([ranked]))
    assert "global batch 64, execution.channels_last=False): 1 rank 1.00x" in text
    drawn = json.loads(page_data([ranked], [], 10**6))["lists"][0]["scaling"]
    for one, series in zip(drawn, ranked.scaling, strict=True):
        assert [ranked.entries[place].overrides for place in one["of"]] == [series.settings] * 2


def test_scaling_is_weak_only_where_the_share_of_a_rank_is_exactly_the_same():
    assert scaling([size(3, 64, 1.0), size(6, 130, 2.0)]) == ()
    (weak,) = scaling([size(3, 64, 1.0), size(6, 128, 2.0)])
    assert (weak.kind, weak.batch_size) == ("weak", pytest.approx(64 / 3))


def test_a_scaling_line_names_its_backend_and_the_nodes_in_which_equal_sizes_differ(add, results):
    add()
    (ranked,) = rank(collect([results]).runs)
    twins = scaling([size(2, 64, 1.0), size(2, 64, 0.8, nodes=2), size(4, 64, 2.0)])
    plain = scaling([size(2, 64, 1.0, backend="horovod"), size(4, 64, 2.0, backend="horovod")])
    text = ranking_text(ranking_document([ranked.model_copy(update={"scaling": (*twins, *plain)})]))
    assert "of box (torch, bf16, global batch 64): 2 ranks on 1 node 1.00x (100%), 2 ranks on 2 nodes 0.80x" in text
    assert "of box (horovod, bf16, global batch 64): 2 ranks 1.00x (100%), 4 ranks 2.00x" in text
