"""Each rule of docs/levels-and-rules.md: a set that keeps it, and one that breaks it."""

import json
import shutil

import pytest
from honest import edit_json, edit_log, honest_run, reseal

from hpcai500.errors import SpecError
from hpcai500.events.vocabulary import Key
from hpcai500.score.record.system import read_system
from hpcai500.score.rules.check import breaches_of, check, check_entry
from hpcai500.spec.levels import Level
from hpcai500.spec.metrics import kind_of
from hpcai500.spec.models import parse
from hpcai500.spec.run import RunSpec, read_run
from hpcai500.spec.workload import MOST_FLOP_BATCHES, load_rules, shipped_workloads


@pytest.fixture
def my_copy(tmp_path):
    """Image Classification in a folder of one's own, with other code for the same model."""
    source = next(folder for folder in shipped_workloads() if folder.name == "image_classification")
    copy = tmp_path / "mine"
    shutil.copytree(source, copy)
    with (copy / "workload.py").open("a") as file:
        file.write("# another implementation\n")
    return copy


@pytest.fixture
def honest_set(make_spec):
    """Five runs of the mini problem that keep every rule."""

    def make(level=Level.HARDWARE, **fields):
        return [honest_run(make_spec(level=level, seed=seed, **fields)) for seed in range(5)]

    return make


def rules_of(folders, **options):
    return sorted({breach.rule for breach in check_entry(folders, **options).breaches})


@pytest.mark.parametrize("level", list(Level))
@pytest.mark.parametrize("workload", ["image_classification", "extreme_weather"])
def test_an_honest_set_keeps_every_rule_at_every_level(honest_set, level, workload):
    report = check_entry(honest_set(level, workload=workload))
    assert report.breaches == ()
    assert report.changes == ()


def value(new):
    return lambda record: record.update(value=new)


def later(milliseconds):
    return lambda record: record.update(time_ms=record["time_ms"] + milliseconds)


def drop(record):
    return False


def row(**fields):
    return lambda record: record["value"].update(fields)


def structure(**fields):
    return lambda record: record["value"].update(fields)


FORGED_LOGS = [
    ("1.3", Key.SEED, value(77)),
    ("1.3", Key.GLOBAL_BATCH_SIZE, value(8)),
    ("1.3", Key.OPT_BASE_LEARNING_RATE, value(9.0)),
    ("1.3", Key.RUN, row(experiment_digest="0" * 64)),
    ("1.3", Key.DATASET, row(digest="another")),
    ("1.5", Key.RUN_START, drop),
    ("1.5", Key.EVAL_STOP, drop),
    ("1.5", Key.TRAIN_SAMPLES, drop),
    ("1.7", Key.RUN_STOP, lambda record: record["metadata"].update(status="aborted")),
    ("2.1", Key.RUN_STOP, later(-30_000)),
    ("2.2", Key.RUN_STOP, later(-30_000)),
    ("2.3", Key.EPOCH, row(train_sec=1.0)),
    ("2.3", Key.EPOCH, row(eval_sec=20.0)),
    ("3.1", Key.EPOCH, drop),
    ("3.2", Key.EVAL_ACCURACY, value(0.99)),
    ("3.2", Key.EPOCH, row(quality=0.8512345)),
    ("3.2", Key.EPOCH, lambda record: record["metadata"].update(num_samples=12)),
    ("3.3", Key.EPOCH, row(num_samples=99)),
    ("3.4", Key.EPOCH, row(flops=1e18)),
    ("3.4", Key.FLOPS_PER_SAMPLE, row(mean=1e18)),
    ("3.4", Key.FLOPS_PER_SAMPLE, lambda record: record["metadata"].update(convention="23 GFLOPs")),
    ("1.3", Key.RUN, row(torch_version="2.13.0")),
    ("1.3", Key.DATASET, row(synthetic=True)),
    ("2.2", Key.EPOCH_START, later(15_000)),
    ("3.4", Key.MODEL, drop),
    ("3.4", Key.FLOPS_PER_SAMPLE, row(mean=1.0)),
    ("1.3", Key.GRADIENT_ACCUMULATION_STEPS, value(99)),
    ("2.2", Key.INIT_STOP, later(-1_000)),
    ("2.3", Key.EPOCH, row(data_wait_sec=1e6)),
    ("3.2", Key.EPOCH, lambda record: record["metadata"].pop("num_samples")),
    ("3.5", Key.EPOCH, row(learning_rate=1e41)),
    ("4.4", Key.FLOPS_PER_SAMPLE, row(mean=495_771_648 * 1.001)),
    ("4.2", Key.DATASET, row(digest=None)),
    ("4.4", Key.MODEL, structure(parameters_digest="0" * 64)),
    ("4.4", Key.MODEL, structure(num_parameters=7)),
    ("4.4", Key.MODEL, lambda record: record["value"]["layer_flops"].update(conv1=1.0)),
]


@pytest.mark.parametrize(("rule", "key", "change"), FORGED_LOGS)
def test_an_edited_log_is_named_by_the_manifest_and_also_by_what_it_contradicts(honest_set, rule, key, change):
    folders = honest_set()
    edit_log(folders[2], key, change)
    found = rules_of(folders)
    assert "1.2" in found
    reseal(folders[2])
    found = check_entry(folders).breaches
    assert rule in {breach.rule for breach in found}, found
    assert {str(breach.run) for breach in found if breach.rule == rule} == {str(folders[2])}


@pytest.mark.parametrize("name", ["run.json", "events.log", "system.json"])
def test_one_changed_byte_is_named(honest_set, name):
    folders = honest_set()
    path = folders[0] / name
    path.write_text(path.read_text() + " ")
    (breach,) = [found for found in breaches_of(folders) if found.rule == "1.2"]
    assert name in breach.message


@pytest.mark.parametrize("name", ["run.json", "events.log", "system.json", "result.json", "manifest.json"])
@pytest.mark.parametrize("content", [None, "", "{", "[]", "null", '{"schema_version": 99}', "\xff\xfe"])
def test_a_file_that_is_missing_or_broken_is_a_breach_and_no_traceback(honest_set, name, content):
    folders = honest_set()
    (folders[1] / name).unlink()
    if content is not None:
        (folders[1] / name).write_text(content, encoding="latin-1")
    found = [breach for breach in breaches_of(folders) if str(breach.run) == str(folders[1])]
    assert found
    assert {breach.rule for breach in found} & {"1.1", "1.2", "1.4", "1.5"}


@pytest.mark.parametrize("change", [row(num_samples=10**4000), row(train_sec=-1.0), row(quality="good")])
def test_figures_that_no_run_can_have_are_one_breach_and_spare_the_other_runs(honest_set, change):
    folders = honest_set()
    edit_log(folders[2], Key.EPOCH, change)
    (breach,) = breaches_of(folders)
    assert (breach.rule, str(breach.run)) == ("1.1", str(folders[2]))


def test_an_edited_result_is_named(honest_set):
    folders = honest_set()
    edit_json(folders[0] / "result.json", lambda result: result["score"].update(vflops=1e20))
    (breach,) = breaches_of(folders)
    assert (breach.rule, str(breach.run)) == ("1.4", str(folders[0]))
    assert "score" in breach.message


def test_a_value_that_no_override_explains_is_named(honest_set):
    folders = honest_set(Level.FREE)
    edit_json(folders[0] / "run.json", lambda run: run["settings"]["optimizer"].update(momentum=0.1))
    reseal(folders[0])
    assert "1.6" in rules_of(folders)


def test_overrides_that_a_level_opens_are_changes_and_no_breaches(make_spec):
    overrides = {"batch.global_batch_size": 96}
    folders = [
        honest_run(make_spec(level=Level.HARDWARE, seed=seed, overrides=overrides, unranked=False))
        for seed in range(5)
    ]
    report = check_entry(folders)
    assert report.breaches == ()
    assert report.changes == ("batch.global_batch_size: 64 -> 96",)


@pytest.mark.parametrize(
    ("level", "key", "new", "rule"),
    [
        (Level.HARDWARE, "optimizer.momentum", 0.5, "4.5"),
        (Level.SYSTEM, "optimizer.momentum", 0.5, "4.5"),
        (Level.SYSTEM, "model.label_smoothing", 0.5, "4.5"),
        (Level.FREE, "optimizer.momentum", 0.5, None),
        (Level.FREE, "problem.target_quality", 0.5, "4.1"),
        (Level.HARDWARE, "problem.penalty_exponent", 1, "4.1"),
    ],
)
def test_what_a_level_fixes_is_the_references_and_what_it_opens_is_disclosed(make_spec, level, key, new, rule):
    """A trial whose mark was removed: what a forger would do with a run that was refused."""
    folders = []
    for seed in range(5):
        spec = make_spec(level=level, seed=seed, overrides={key: new}, unranked=rule is not None)
        folders.append(honest_run(spec.model_copy(update={"unranked": False})))
    report = check_entry(folders)
    found = {breach.rule for breach in report.breaches}
    assert found == ({rule} if rule else set())
    assert any(line.startswith(key) for line in report.changes)


def test_a_changed_copy_breaks_hardware_level_alone_while_its_model_is_the_same(make_spec, my_copy):
    for level, rules in ((Level.HARDWARE, ["4.3"]), (Level.SYSTEM, []), (Level.FREE, [])):
        specs = [make_spec(workload=my_copy, level=level, seed=seed, unranked=True) for seed in range(5)]
        folders = [honest_run(spec.model_copy(update={"unranked": False})) for spec in specs]
        assert rules_of(folders) == rules
        assert any("the code of the workload" in line for line in check_entry(folders).changes)


@pytest.mark.parametrize(
    ("level", "factor", "rules"),
    [
        (Level.HARDWARE, 1.0, []), (Level.HARDWARE, 1.001, ["4.4"]), (Level.SYSTEM, 1.005, ["4.4"]),
        (Level.FREE, 0.98, ["4.4"]),
    ],
)  # fmt: skip
def test_training_a_sample_takes_the_flops_of_the_reference_whose_code_it_is(make_spec, level, factor, rules):
    folders = [
        honest_run(make_spec(level=level, seed=seed), flops_per_sample=factor * 495_771_648) for seed in range(5)
    ]
    assert rules_of(folders) == rules


@pytest.mark.parametrize(
    ("level", "factor", "rules"),
    [(Level.SYSTEM, 1.005, []), (Level.SYSTEM, 0.98, ["4.4"]), (Level.FREE, 0.98, []), (Level.FREE, 1.17, [])],
)
def test_another_implementation_may_count_a_gradient_more(make_spec, my_copy, level, factor, rules):
    specs = [make_spec(workload=my_copy, level=level, seed=seed, unranked=True) for seed in range(5)]
    specs = [spec.model_copy(update={"unranked": False}) for spec in specs]
    assert rules_of([honest_run(spec, flops_per_sample=factor * 495_771_648) for spec in specs]) == rules


def test_free_level_counts_the_layers_of_unchanged_code_as_the_reference_does(honest_set):
    """A thousand times the FLOPs, told alike wherever they stand."""
    folders = honest_set(Level.FREE)

    def larger(structure):
        structure["layer_flops"] = {name: 1_000 * flops for name, flops in structure["layer_flops"].items()}

    for folder in folders:
        edit_log(folder, Key.MODEL, lambda record: larger(record["value"]))
        edit_json(folder / "system.json", lambda system: larger(system["layers"]["7"]["structure"]))
        edit_log(folder, Key.FLOPS_PER_SAMPLE, lambda record: record["value"].update(mean=495_771_648_000.0))
        for number in range(4):
            edit_log(
                folder, Key.EPOCH, lambda record: record["value"].update(flops=1e3 * record["value"]["flops"]), number
            )
        reseal(folder)
    assert rules_of(folders) == ["4.4"]


def test_layers_vary_where_the_reference_says_so_alone(honest_set):
    folders = honest_set()

    def vary(structure):
        structure["varying_layers"] = sorted(structure["layer_flops"])
        structure["layer_flops"]["conv1"] *= 1.4

    edit_log(folders[0], Key.MODEL, lambda record: vary(record["value"]))
    edit_json(folders[0] / "system.json", lambda system: vary(system["layers"]["7"]["structure"]))
    reseal(folders[0])
    assert rules_of(folders) == ["4.4"]


def test_one_run_under_several_seeds_is_named(honest_set):
    first, second, *_ = folders = honest_set()
    run_id = read_run(second / "run.json").run_id
    (second / "events.log").write_text((first / "events.log").read_text())
    edit_log(second, Key.RUN, row(run_id=run_id))
    edit_log(second, Key.SEED, value(1))
    edit_log(second, Key.EPOCH, row(train_loss=1.000000000001))
    reseal(second)
    (breach,) = breaches_of(folders)
    assert (breach.rule, first.name in breach.message, second.name in breach.message) == ("5.1", True, True)


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("1.3", lambda system: system["nodes"][0]["layers"]["5"].update(torch="2.13.0")),
        ("1.3", lambda system: system["nodes"][0]["layers"]["6"].update(nodes=2)),
        ("1.3", lambda system: system["nodes"][0]["layers"]["6"].update(compile="max-autotune")),
        ("1.3", lambda system: system["layers"]["7"]["model"].update(num_classes=7)),
        ("1.3", lambda system: system["layers"]["7"]["structure"].update(num_parameters=7)),
        ("1.3", lambda system: system["nodes"][0].update(count=2)),
        ("4.7", lambda system: system["nodes"][0]["layers"].update({"3": {}})),
        ("5.4", lambda system: system["nodes"][0]["layers"]["1"].update(cpu_model="Another CPU")),
        ("5.4", lambda system: system["nodes"][0]["layers"]["1"].update(gpus=[{"model": "A GPU"}])),
    ],
)
def test_an_edited_system_is_named(honest_set, rule, change):
    folders = honest_set()
    edit_json(folders[3] / "system.json", change)
    reseal(folders[3])
    assert rule in rules_of(folders)


def test_predictions_that_were_logged_must_be_there(honest_set):
    folders = honest_set()
    num_epochs = 4
    edit_log(folders[0], Key.EPOCH, lambda record: record["metadata"].update(num_records=2), num_epochs - 1)
    predictions = folders[0] / "evaluation.json"
    for content, message in (
        (None, "is missing"),
        ("[{}]", "holds 1 predictions"),
        ("7", "no len"),
        ("[{}, {}]", ""),
    ):
        predictions.unlink(missing_ok=True)
        if content is not None:
            predictions.write_text(content)
        reseal(folders[0])
        found = breaches_of(folders)
        assert {breach.rule for breach in found} == ({"3.2"} if message else set())
        assert all(message in breach.message for breach in found)


def test_check_and_package_follow_links_as_rank_does(honest_set, tmp_path, hpcai500):
    folders = honest_set()
    linked = tmp_path / "linked"
    linked.mkdir()
    for folder in folders:
        (linked / folder.name).symlink_to(folder)
    (report,) = check([linked])
    assert (len(report.runs), report.breaches) == (5, ())
    assert hpcai500("package", linked, "--output", tmp_path / "set.zip")[0] == 0
    assert hpcai500("check", tmp_path / "set.zip")[0] == 0


def test_a_run_named_by_one_of_its_files_is_a_single_run_too(honest_set):
    folder = honest_set()[0]
    (report,) = check([folder / "run.json"])
    assert report.breaches == ()


def test_two_runs_for_one_place_of_an_archive_are_refused(honest_set, tmp_path, hpcai500):
    folders = honest_set()
    copy = tmp_path / "copy" / folders[0].name
    shutil.copytree(folders[0], copy)
    code, _, err = hpcai500("package", folders[0], copy, "--output", tmp_path / "set.zip")
    assert (code, "would have the same name in the archive" in err) == (2, True)
    assert not (tmp_path / "set.zip").exists()


@pytest.mark.parametrize("level", [Level.HARDWARE, Level.SYSTEM])
def test_a_problem_of_its_own_starts_at_free_level_alone(make_spec, my_copy, level):
    rules = my_copy / "workload.toml"
    rules.write_text(rules.read_text().replace('benchmark = "resnet"', 'benchmark = "resnet2"'))
    with pytest.raises(SpecError, match="no shipped workload has benchmark 'resnet2' with problem 'mini'"):
        make_spec(workload=my_copy, level=level)
    report = check_entry([honest_run(make_spec(workload=my_copy, level=Level.FREE))], whole_set=False)
    assert report.changes == (
        "no shipped workload has benchmark 'resnet2' with problem 'mini': a problem of its own",
    )


def test_seeds_in_two_folders_are_one_entry_as_a_ranking_takes_them(honest_set, tmp_path):
    folders = honest_set()
    for number, folder in enumerate(folders):
        place = tmp_path / ("a" if number < 3 else "b")
        place.mkdir(exist_ok=True)
        shutil.move(folder, place / folder.name)
    (report,) = check([tmp_path / "a", tmp_path / "b"])
    assert (len(report.runs), report.breaches) == (5, ())


def test_joules_without_a_source_are_nobody_s(honest_set, hpcai500):
    folders = honest_set()
    for folder in folders:
        for number in range(4):
            edit_log(folder, Key.EPOCH, row(energy_joules=0.001), number)
        reseal(folder)
    code, out, _ = hpcai500("rank", "--json", folders[0].parent)
    (entry,) = json.loads(out)["lists"][0]["entries"]
    assert (code, entry["vflops_per_watt"]["mean"]) == (0, None)


def test_another_framework_than_the_references_breaks_hardware_level(honest_set, make_spec):
    folders = honest_set()
    same = honest_run(make_spec(level=Level.HARDWARE, system="b"), torch="2.15.0+cpu")
    other = honest_run(make_spec(level=Level.HARDWARE, system="c"), torch="2.13.0")
    assert rules_of(folders, framework=read_system(same / "system.json")) == []
    assert rules_of(folders, framework=read_system(other / "system.json")) == ["4.6"]


def test_check_holds_layer_5_against_the_run_that_reference_names(honest_set, make_spec, hpcai500):
    folders = honest_set()
    same = honest_run(make_spec(level=Level.HARDWARE, system="b"), torch="2.15.0+cpu")
    other = honest_run(make_spec(level=Level.HARDWARE, system="c"), torch="2.13.0")
    code, out, _ = hpcai500("check", *folders, "--reference", same)
    assert (code, "0 breaches" in out, "rule 4.6" in out) == (0, True, False)
    code, out, _ = hpcai500("check", *folders, "--reference", other)
    lines = [line for line in out.splitlines() if line.startswith("4.6  ")]
    assert (code, len(lines)) == (1, 5)
    assert "torch is 2.15.0, in the reference 2.13.0" in lines[0]
    assert hpcai500("check", *folders, "--reference", "/absent")[0] == 2


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, None),
        ({"unranked": True}, "a trial (--unranked)"),
        ({"data": "synthetic"}, "synthetic data"),
        ({"resume_from": "/another/run"}, "starts from another run's checkpoint"),
    ],
)
def test_a_trial_synthetic_data_and_a_borrowed_checkpoint_are_never_ranked(make_spec, hpcai500, fields, reason):
    folder = honest_run(make_spec(level=Level.HARDWARE, **fields))
    code, out, _ = hpcai500("check", folder)
    assert code == (1 if reason else 0)
    found = [line for line in out.splitlines() if line.startswith("1.7  ")]
    assert len(found) == (1 if reason else 0)
    assert not reason or f"never ranked: {reason}" in found[0]


def test_a_run_that_reads_many_batches_before_its_clock_breaks_a_rule(make_spec):
    record = make_spec(level=Level.HARDWARE).model_dump(mode="json")
    for num_batches, broken in ((MOST_FLOP_BATCHES, False), (MOST_FLOP_BATCHES + 1, True)):
        record["settings"]["execution"]["num_flop_batches"] = num_batches
        record["overrides"]["execution.num_flop_batches"] = num_batches
        found = check_entry([honest_run(parse(RunSpec, record, "run"))]).breaches
        assert [breach.rule for breach in found if breach.rule.startswith("1.")] == ["1.7"] * broken


def test_layers_that_were_not_captured_are_named(honest_set):
    folders = honest_set(Level.FREE)
    edit_json(folders[0] / "system.json", lambda system: system.pop("layers"))
    reseal(folders[0])
    assert rules_of(folders) == ["4.7"]


def test_a_set_needs_five_distinct_seeds_of_one_experiment_and_one_may_miss_the_target(make_spec, honest_set):
    folders = honest_set()
    assert rules_of(folders[:4]) == ["5.2"]
    assert rules_of(folders[:1], whole_set=False) == []
    twin = folders[0].parent / folders[0].name.replace("-seed0", "-seed5")
    shutil.copytree(folders[0], twin)
    assert rules_of([*folders, twin]) == ["5.1"]
    for seed, rules in ((6, []), (7, ["5.3"])):
        spec = make_spec(level=Level.HARDWARE, seed=seed)
        folders.append(honest_run(spec, [0.5] * spec.settings.problem.num_epochs))
        assert rules_of(folders) == rules
    stranger = honest_run(make_spec(level=Level.HARDWARE, seed=9, procs_per_node=2))
    assert rules_of([*folders[:5], stranger]) == ["5.4"]


def test_swapped_seeds_are_named(honest_set):
    first, second, *_ = folders = honest_set()
    held = (first / "events.log").read_text()
    (first / "events.log").write_text((second / "events.log").read_text())
    (second / "events.log").write_text(held)
    for folder in (first, second):
        reseal(folder)
    found = [breach for breach in breaches_of(folders) if breach.rule == "1.3"]
    assert {str(breach.run) for breach in found} == {str(first), str(second)}


def test_check_groups_runs_and_spares_a_single_one_the_rules_of_sets(honest_set, tmp_path, hpcai500):
    folders = honest_set()
    (report,) = check([tmp_path / "results"])
    assert (len(report.runs), report.breaches) == (5, ())
    (report,) = check([folders[0]])
    assert report.breaches == ()
    assert "rules 5.1 to 5.4" in report.notes[0]
    code, out, _ = hpcai500("check", tmp_path / "results")
    assert (code, out.splitlines()[0].endswith("5 runs, 0 breaches")) == (0, True)
    shutil.rmtree(folders[4])
    code, out, _ = hpcai500("check", tmp_path / "results")
    assert code == 1
    assert out.splitlines()[1].startswith("5.2  ")
    code, out, _ = hpcai500("check", "--json", tmp_path / "results")
    assert (code, json.loads(out)[0]["breaches"][0]["rule"]) == (1, "5.2")
    assert hpcai500("check", "/absent")[0] == 2


def another_node(layer, **values):
    """Of two nodes the second differs, and nothing in the file says so."""

    def change(system):
        (kind,) = system["nodes"]
        layers = {number: dict(held) for number, held in kind["layers"].items()}
        layers[str(layer)].update(values)
        system["nodes"] = [
            {"count": 1, "hosts": ["n6"], "layers": kind["layers"]}, {"count": 1, "hosts": ["n7"], "layers": layers},
        ]  # fmt: skip

    return change


@pytest.mark.parametrize(
    ("layer", "values", "rule"),
    [
        (1, {"cpu_model": "Another CPU"}, "5.4"),
        (5, {"torch": "2.3.0"}, "4.6"),
        (6, {"precision": "bf16"}, "1.3"),
        (6, {"backend": "horovod"}, "1.3"),
    ],
)
def test_every_node_is_looked_at(honest_set, layer, values, rule):
    folders = honest_set(nodes=2, launcher="srun")
    assert rules_of(folders) == []
    edit_json(folders[3] / "system.json", another_node(layer, **values))
    reseal(folders[3])
    assert rule in rules_of(folders)


def test_nodes_that_differ_are_noted(honest_set):
    folders = honest_set(nodes=2, launcher="srun")
    edit_json(folders[3] / "system.json", another_node(2, kernel="5.4"))
    reseal(folders[3])
    report = check_entry(folders)
    assert report.breaches == ()
    assert any("n7 differ in Layer 2: kernel is '5.4', not '6.1'" in note for note in report.notes)


def test_runs_are_one_entry_by_what_they_record_and_not_by_their_folders_names(honest_set, tmp_path):
    folders = honest_set()
    for number, folder in enumerate(folders):  # what a user may call them
        folder.rename(folder.with_name(f"try-{number}-of-a-b-seed{9 - number}0"))
    (report,) = check([tmp_path / "results"])
    assert (len(report.runs), report.breaches) == (5, ())


def test_a_run_that_does_not_say_what_it_is_of_stays_with_the_entry_beside_it(honest_set, make_spec, tmp_path):
    folders = honest_set()
    (folders[1] / "run.json").write_text("{")
    (report,) = check([tmp_path / "results"])  # by its result.json
    assert {str(breach.run) for breach in report.breaches if breach.rule == "1.1"} == {str(folders[1])}
    (folders[1] / "result.json").unlink()
    (report,) = check([tmp_path / "results"])  # by the runs beside it
    assert len(report.runs) == 5
    honest_run(make_spec(level=Level.HARDWARE, seed=0, procs_per_node=2))
    assert [len(report.runs) for report in check([tmp_path / "results"])] == [4, 1, 1]  # two entries are beside it


@pytest.mark.parametrize(
    ("metric", "quality", "breaks", "is_noted"),
    [
        ("top-1 accuracy", 0.9001, True, False),
        ("accuracy", 0.9001, True, False),
        ("top-1 accuracy", 0.9, False, False),
        ("mAP@0.5", 0.9001, False, False),
        ("inaccuracy of my own", 0.9001, False, True),
    ],
)
def test_a_quality_must_be_a_number_of_right_answers_if_its_metric_counts_them(
    make_spec, metric, quality, breaks, is_noted
):
    spec = make_spec(level=Level.FREE, overrides={"problem.metric": metric}, unranked=True)
    report = check_entry([honest_run(spec, [quality] * 4)], whole_set=False)
    found = [breach.message for breach in report.breaches if "no whole number of right answers" in breach.message]
    assert bool(found) == breaks
    assert any("does not know the metric" in note for note in report.notes) == is_noted


@pytest.mark.parametrize("workload", shipped_workloads(), ids=lambda folder: folder.name)
def test_the_metric_of_every_shipped_problem_is_known(workload):
    assert all(kind_of(settings.problem.metric) for settings in load_rules(workload).problems.values())
