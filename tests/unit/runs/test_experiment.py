"""What a command asks to train becomes one RunSpec per seed."""

import pytest

from hpcai500.errors import SpecError
from hpcai500.launch.layout import Layout
from hpcai500.runs.experiment import AUTO, Experiment, require_resumable, resolve_at, resolve_here, resolve_seeds
from hpcai500.score.record.result import write_result
from hpcai500.spec.run import read_run
from hpcai500.spec.site import Site, load_site


@pytest.fixture
def ask(tmp_path):
    """An experiment on Image Classification's mini problem; keywords replace fields."""

    def ask(**fields):
        given = {"workload": "image_classification", "problem": "mini", "settings": {}, "output": str(tmp_path / "r")}
        return Experiment(**given | fields)

    return ask


def with_places(site, **places):
    return site.model_copy(update={"places": site.places.model_copy(update=places)})


def test_seeds_of_one_experiment_differ_in_nothing_else(ask):
    specs = resolve_seeds(ask(seeds=(3, 0, 5)), Layout(nodes=2, procs_per_node=2), Site(), "box")
    assert [spec.seed for spec in specs] == [3, 0, 5]
    assert len({spec.experiment_digest for spec in specs}) == 1
    assert len({spec.run_prefix for spec in specs}) == 1
    assert (specs[0].nodes, specs[0].world_size, specs[0].system) == (2, 4, "box")


def test_the_site_says_where_things_lie_unless_the_command_does(ask, tmp_path):
    site = with_places(
        Site(), results=str(tmp_path / "theirs"), staging="/local", data={"image_classification": "/data/images"}
    )
    (spec,) = resolve_seeds(ask(output=""), Layout(), site, "box")
    assert (spec.output, spec.staging) == (str(tmp_path / "theirs"), "/local")
    assert spec.data == "/data/images/mini"
    own = ask(output=str(tmp_path / "mine"), staging="/fast", data="synthetic", system="me")
    (spec,) = resolve_seeds(own, Layout(), site, "box")
    assert (spec.output, spec.staging, spec.data, spec.system) == (str(tmp_path / "mine"), "/fast", "synthetic", "me")


def test_short_options_are_settings_that_win_over_set(ask):
    asked = ask(
        settings={"execution.precision": "fp16", "optimizer.momentum": 0.5}, precision="bf16", deterministic=True
    )
    assert asked.overrides == {
        "execution.precision": "bf16", "optimizer.momentum": 0.5, "execution.deterministic": True
    }  # fmt: skip
    assert ask().overrides == {}


def test_the_precision_of_this_machine_is_no_answer_for_a_cluster(ask):
    with pytest.raises(SpecError, match="name a precision"):
        resolve_at(ask(precision=AUTO), load_site("testbed"))


def test_on_this_machine_auto_is_replaced_by_what_it_has(ask, this_computer):
    asked = ask(precision=AUTO, settings={"execution.device": "cpu"})
    specs, allocation = resolve_here(asked, Site(), this_computer)
    assert allocation is None
    assert specs[0].settings.execution.precision in ("fp32", "bf16")


@pytest.fixture
def this_computer(monkeypatch):
    from hpcai500.launch.environment import this_machine

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    machine = this_machine()
    return machine._replace(env={name: value for name, value in machine.env.items() if "SLURM" not in name})


def test_a_site_gets_a_list_of_runs_for_each_number_of_nodes(ask):
    site = load_site("testbed")
    sizes = resolve_at(ask(seeds=(0, 1)), site, [1, 2])
    assert [[(spec.nodes, spec.seed) for spec in specs] for specs in sizes] == [[(1, 0), (1, 1)], [(2, 0), (2, 1)]]
    assert {spec.launcher for specs in sizes for spec in specs} == {site.slurm.launcher}
    ((own,),) = resolve_at(ask(), site)
    assert (own.nodes, own.procs_per_node) == (site.slurm.nodes, site.slurm.procs_per_node)
    ((asked,),) = resolve_at(ask(procs_per_node=1), site)
    assert asked.procs_per_node == 1


def test_a_checkpoint_of_another_seed_or_training_is_refused(make_spec, tmp_path):
    earlier = make_spec(output=str(tmp_path / "earlier"))
    with pytest.raises(SpecError, match=r"no run\.json there"):
        require_resumable(make_spec(resume_from=str(earlier.folder)))
    earlier.write()
    require_resumable(make_spec(resume_from=str(earlier.folder), procs_per_node=1))
    with pytest.raises(SpecError, match="use --seed 0"):
        require_resumable(make_spec(resume_from=str(earlier.folder), seed=1))
    with pytest.raises(SpecError, match="differs in more than its backend"):
        require_resumable(
            make_spec(resume_from=str(earlier.folder), overrides={"optimizer.momentum": 0.5}, unranked=False)
        )


def test_a_run_that_has_trained_all_its_epochs_leaves_nothing_to_resume(make_spec, write_run, tmp_path):
    earlier = make_spec(output=str(tmp_path / "earlier"))
    num_epochs = earlier.settings.problem.num_epochs
    write_result(write_run(earlier, [0.5] * num_epochs))
    late = make_spec(resume_from=str(earlier.folder))
    with pytest.raises(SpecError, match="has trained all its epochs"):
        require_resumable(late)
    late.write()  # a run that has begun continues from checkpoints of its own
    require_resumable(late)
    assert read_run(late.folder / "run.json").resume_from == str(earlier.folder)
