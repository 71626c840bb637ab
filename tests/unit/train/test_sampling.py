import pytest

from hpcai500.train.sampling import eval_batches, eval_share, micro_batches


def global_batches(spec, epoch):
    """The samples of each step over all ranks, in rank order."""
    per_step = spec.samples_per_rank // spec.micro_batch_size
    ranks = [list(micro_batches(spec, rank, epoch)) for rank in range(spec.world_size)]
    return [
        [key.sample for rank in ranks for batch in rank[step * per_step : (step + 1) * per_step] for key in batch]
        for step in range(spec.steps_per_epoch)
    ]


def test_every_world_size_sees_the_same_samples_in_the_same_global_batches(make_spec):
    expected = global_batches(make_spec(procs_per_node=1), epoch=3)
    for ranks in (2, 4, 8, 64):
        assert global_batches(make_spec(procs_per_node=ranks), epoch=3) == expected
    samples = [sample for batch in expected for sample in batch]
    assert len(samples) == len(set(samples)) == 22 * 64


def test_seed_and_epoch_decide_the_order(make_spec):
    one = global_batches(make_spec(), 1)
    assert global_batches(make_spec(), 1) == one
    assert global_batches(make_spec(), 2) != one
    assert global_batches(make_spec(seed=1), 1) != one


@pytest.mark.parametrize("world_size", [1, 2, 3, 7, 400])
def test_evaluation_shares_hold_each_sample_once_and_are_even(world_size):
    shares = [eval_share(360, rank, world_size) for rank in range(world_size)]
    assert sorted(index for share in shares for index in share) == list(range(360))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("ranks", [1, 2, 16])
def test_evaluation_batches_are_a_rank_s_share_in_micro_batches(make_spec, ranks):
    spec = make_spec(procs_per_node=ranks)
    cut = [eval_batches(spec, rank, ranks) for rank in range(ranks)]
    for rank, batches in enumerate(cut):
        assert [index for batch in batches for index in batch] == list(eval_share(360, rank, ranks))
        assert {len(batch) for batch in batches[:-1]} <= {spec.micro_batch_size}
        assert 0 < len(batches[-1]) <= spec.micro_batch_size
