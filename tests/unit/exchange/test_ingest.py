"""Foreign programs: their logs as runs, refused where they are none, timed where we run them, held to the rules."""

import json
import stat
import sys
import zipfile
from statistics import fmean

import pytest
from foreign_log import LAYERS, START_MS, change, drop, foreign_lines, omit, text_of

from hpcai500.exchange import foreign
from hpcai500.score.rules.check import check

WORDS = ("--workload", "image_classification", "--problem", "mini")


@pytest.fixture
def source(tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "train.awk").write_text("BEGIN { print 42 }\n")
    return tmp_path / "src"


@pytest.fixture
def ingest(tmp_path, source, hpcai500):
    """Ingest records, or bytes; exit code, stdout, stderr."""

    def call(records, *words, name="a.log", disclose=True):
        log = tmp_path / name
        log.write_bytes(records if isinstance(records, bytes) else text_of(records).encode())
        shown = ("--source", source) if disclose else ()
        return hpcai500("ingest", log, *WORDS, "--output", tmp_path / "results", *shown, *words)

    return call


@pytest.fixture
def results(tmp_path):
    return tmp_path / "results"


def rules(results):
    """Those that the runs break, each held against the rules of single runs."""
    folders = [path.parent for path in results.rglob("run.json")]
    return sorted({breach.rule for report in check(folders) for breach in report.breaches})


def test_a_foreign_log_is_checked_ranked_shown_compared_and_packed_like_any_run(ingest, results, tmp_path, hpcai500):
    seconds = (9.8, 9.9, 10.0, 10.1, 10.2)
    for seed, epoch_sec in enumerate(seconds):
        code, out, err = ingest(foreign_lines(seed=seed, epoch_sec=epoch_sec), name=f"{seed}.log")
        assert (code, err) == (0, "")
    # by hand: 4 epochs x 1,408 samples x 184,320 FLOPs over 40.4 s and the like, times (0.9 / 0.85) ** 5
    each = [4 * 1408 * 184_320 / (4 * sec + 0.4) * (0.9 / 0.85) ** 5 for sec in seconds]
    vflops = fmean(each)
    assert f"VFLOPS {each[-1] / 1e6:.4g} M" in out
    (report,) = check([results])
    assert (len(report.runs), report.breaches) == (5, ())
    changes = "\n".join(report.changes)
    assert "Layer 5 (Framework, stated): framework 'awk 5.2'" in changes
    assert "Layer 8 (Hyper parameters, stated): global_batch_size 64, opt_name 'guessing'" in changes
    assert any("Layers 1, 2, 3, 4, 5, 6, 7, 8, 9 are stated by it, not captured" in note for note in report.notes)
    assert any("timed only by" in note for note in report.notes)
    code, out, _ = hpcai500("rank", "--json", results)
    (entry,) = json.loads(out)["lists"][0]["entries"]
    assert entry["vflops"]["mean"] == pytest.approx(vflops)
    assert (entry["accelerator"], entry["backend"], entry["num_breaches"]) == ("Abacus 3000", "foreign", 0)
    first, second, *_ = sorted(path.parent for path in results.rglob("run.json"))
    assert hpcai500("show", first)[0] == 0
    code, out, _ = hpcai500("compare", first, second)
    assert (code, "comparable at free level; not at system level because" in out) == (0, True)
    assert hpcai500("package", results, "--output", tmp_path / "set.zip")[0] == 0
    assert hpcai500("verify", tmp_path / "set.zip")[0] == 0
    assert hpcai500("status", results)[0] == 0


def test_the_log_is_kept_byte_for_byte_and_an_edit_is_named(ingest, results, tmp_path):
    ingest(foreign_lines())
    (log,) = results.rglob("events.log")
    assert log.read_bytes() == (tmp_path / "a.log").read_bytes()
    log.write_text(log.read_text().replace('"quality": 0.9', '"quality": 0.95', 1))
    assert {"1.2", "1.4", "3.2"} <= set(rules(results))


def test_one_log_is_one_run(ingest, results, hpcai500):
    assert ingest(foreign_lines())[0] == 0
    code, out, _ = ingest(foreign_lines(), name="copy.log")
    assert (code, "ingested already, kept" in out) == (0, True)
    code, _, err = ingest(foreign_lines(), name="b.log", disclose=False)
    assert (code, "already has the same log" in err) == (2, True)
    code, _, err = ingest(foreign_lines(quality=0.95), name="c.log")
    assert (code, "another log of this experiment and seed" in err) == (2, True)
    assert len(list(results.rglob("run.json"))) == 1


BAD = [
    (drop("run_start"), "no run_start event"),
    (drop("run_stop"), "no run_stop event"),
    (drop("hpcai500.epoch"), "no hpcai500.epoch event"),
    (drop("hpcai500.dataset"), "no hpcai500.dataset event"),
    (drop("opt_base_learning_rate"), "no opt_base_learning_rate with a value"),
    (change("run_stop", time_ms=START_MS), "clock goes back 40.4 s"),
    (
        change("run_stop", metadata={"status": "\x1b[2Jfine"}),
        "run_stop: metadata.status: input should be 'success' or 'aborted', not '\\x1b[2Jfine'",
    ),
    (lambda records: records.extend(list(records)), "a log holds one run"),
    (change("cache_clear", key="hpcai500.hologram"), "this version does not know the key 'hpcai500.hologram'"),
    (
        lambda records: records.insert(1, {**records[0], "key": "hpcai500.run"}),
        "only runs of hpcai500 log hpcai500.run",
    ),
    (change("seed", value=-1), "seed"),
    (change("seed", value="0"), "seed"),
    (change("submission_platform", value="../../etc"), "system"),
    (change("submission_platform", value="<b>x</b>"), "system"),
    (change("submission_benchmark", value="bert"), "submission_benchmark is 'bert', not 'resnet'"),
    (change("submission_division", value="closed"), "submission_division is 'closed', not 'open'"),
    (change("global_batch_size", value=10**9), "exceeds"),
    (change("hpcai500.model", value=None), "hpcai500.model"),
    (change("hpcai500.model", value={"num_parameters": 1, "layer_flops": {}}), "layer_flops"),
    (change("hpcai500.flops_per_sample", value={"mean": 0, "standard_deviation": 0}), "flops"),
    (change("hpcai500.flops_per_sample", value=None), "a.log:18: hpcai500.flops_per_sample: value"),
    (change("hpcai500.epoch", value=[]), "hpcai500.epoch"),
    (
        change("hpcai500.layer", metadata={"layer": 10}),
        "a.log:19: hpcai500.layer: metadata.layer: input should be less than or equal to 9, not 10",
    ),
    (change("hpcai500.layer", value=[1]), "hpcai500.layer: value: input should be an object"),
    (lambda records: records.insert(30, records[20]), ""),
    (lambda records: records.insert(30, records[12]), "opt_base_learning_rate occurs 2 times"),
    (change("submission_platform", value="x" * 201), "a.log:4: submission_platform: value: string should have at"),
    (change("submission_platform", value="x" * 300), "a.log:4: submission_platform: value: string should have at"),
    (change("submission_org", value=None), "a.log:3: submission_org: value"),
    (change("train_samples", value="1437"), "a.log:9: train_samples: value: input should be a valid integer"),
    (change("eval_samples", value=360.5), "a.log:10: eval_samples: value"),
    (change("opt_weight_decay", value=True), "opt_weight_decay: value"),
    (change("hpcai500.dataset", value={}), "hpcai500.dataset: value: it has no digest"),
    (change("hpcai500.dataset", value=["digest"]), "hpcai500.dataset: value: input should be an object"),
    (omit("hpcai500.model", "value", "num_parameters"), "hpcai500.model lacks value.num_parameters"),
    (omit("hpcai500.flops_per_sample", "metadata", "convention"), "flops_per_sample lacks metadata.convention"),
    (omit("hpcai500.epoch", "metadata", "epoch_num"), "a.log:35: hpcai500.epoch lacks metadata.epoch_num"),
    (omit("hpcai500.epoch", "metadata", "num_samples"), "a.log:35: hpcai500.epoch lacks metadata.num_samples"),
    (omit("hpcai500.epoch", "value", "eval_sec"), "a.log:35: hpcai500.epoch lacks value.eval_sec"),
    (change("hpcai500.epoch", metadata={}), "hpcai500.epoch lacks metadata.epoch_num, metadata.num_samples"),
    (change("hpcai500.epoch", metadata={"epoch_num": 2, "num_samples": 360}), "epoch_num is 1, in its metadata 2"),
    (change("hpcai500.epoch", metadata={"epoch_num": 1, "num_samples": "360"}), "metadata.num_samples"),
    (change("epoch_start", metadata={"epoch_num": [1]}), "a.log:30: epoch_start: metadata.epoch_num"),
    *(
        (omit(key, "metadata", "epoch_num"), f"{key} lacks metadata.epoch_num")
        for key in ("epoch_start", "epoch_stop", "eval_start", "eval_stop", "eval_accuracy")
    ),
    (change("eval_accuracy", value="0.9"), "eval_accuracy: value: input should be a valid number"),
    (change("cache_clear", key="hpcai500.energy", value={"sources": []}), "hpcai500.energy lacks value.missing"),
]


@pytest.mark.parametrize(("spoil", "message"), BAD)
def test_a_bad_log_is_one_line_and_leaves_nothing(ingest, results, spoil, message):
    records = foreign_lines()
    spoil(records)
    code, out, err = ingest(records)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert "\x1b" not in err
    assert "Traceback" not in err
    assert not list(results.rglob("*.json"))
    assert not list(results.rglob(".ingest-*"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b":::MLLOG {\n", "not a valid event"),
        (b":::MLLOG " + b"[" * 100_000 + b"\n", "not a valid event"),
        (b':::MLLOG {"time_ms": NaN, "event_type": "POINT_IN_TIME", "key": "x"}\n', "not a valid event"),
        (b':::MLLOG {"time_ms": 1e999, "event_type": "POINT_IN_TIME", "key": "x"}\n', "not a valid event"),
        (b':::MLLOG {"time_ms": 1, "event_type": "POINT_IN_TIME", "key": "\\ud800"}\n', "not a valid event"),
        (b':::MLLOG {"time_ms": 1, "event_type": "SOMETIMES", "key": "x"}\n', "not a valid event"),
        (b"x" * (foreign.MOST_LINE_BYTES + 2), "a line of more than 1,048,576 bytes"),
        (b"\xff\xfe\x00", None),
        (b"<script>alert(1)</script>\n", None),
    ],
)  # fmt: skip
def test_hostile_lines_are_refused_in_one_line_and_noise_is_passed_over(ingest, results, line, message):
    code, _, err = ingest(line + b"\n" + text_of(foreign_lines()).encode())
    assert code == (2 if message else 0), err
    if message:
        assert message in err
        assert "a.log:1" in err
        assert not list(results.rglob("*.json"))


def test_what_is_no_log_or_too_much_is_refused(ingest, tmp_path, hpcai500, monkeypatch):
    assert ingest(b"")[0] == 2
    assert hpcai500("ingest", tmp_path, *WORDS)[0] == 2
    assert hpcai500("ingest", "/absent", *WORDS)[0] == 2
    assert hpcai500("ingest", "/dev/zero", *WORDS)[0] == 2
    monkeypatch.setattr(foreign, "MOST_SOURCE_BYTES", 3)
    assert "give a folder with only the program's so" in ingest(foreign_lines())[2]
    monkeypatch.setattr(foreign, "MOST_LOG_BYTES", 10)
    assert "more than 10" in ingest(foreign_lines())[2]


def test_what_is_given_must_agree_with_the_log(ingest):
    assert "submission_platform is 'abacus', not 'b'" in ingest(foreign_lines(), "--system", "b")[2]
    assert "seed is 0, not 3" in ingest(foreign_lines(), "--seed", "3")[2]
    assert "world_size 1, on 2 nodes" in ingest(foreign_lines(), "--nodes", "2")[2]


@pytest.mark.parametrize(
    ("number", "stated", "message"),
    [
        (1, {"gpus": []}, "lacks cpu_model"),
        (1, {"cpu_model": "x", "gpus": [{"name": "y"}]}, "lacks gpus.0.model"),
        (6, None, "no hpcai500.layer of layer 6"),
        (6, {"device": "cpu"}, "lacks world_size, precision"),
        (6, {"world_size": 1, "precision": "fp8"}, "precision: input should be 'fp32', 'bf16' or 'fp16', not 'fp8'"),
        (7, None, "no hpcai500.layer of layer 7"),
        (7, {"augmentation": "none"}, "lacks model"),
        (7, {"model": ""}, "model: string should have at least 1 character"),
        (9, {}, "lacks metric, target_quality, num_epochs"),
        (9, {"penalty_exponent": 5}, "lacks metric, target_quality, num_epochs"),
        (9, {"metric": "top-1 accuracy"}, "lacks target_quality, num_epochs"),
        (9, {**LAYERS[9], "num_epochs": "4"}, "num_epochs: input should be a valid integer, not '4'"),
        (9, {**LAYERS[9], "target_quality": 85}, "target_quality: input should be less than or equal to 1, not 85"),
    ],
)  # fmt: skip
def test_a_layer_that_is_half_stated_is_refused_and_what_it_lacks_named(ingest, results, number, stated, message):
    layers = without(number) | ({} if stated is None else {number: stated})
    code, out, err = ingest(foreign_lines(layers=layers))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert not results.exists()


def test_a_long_wrong_value_is_shown_short(ingest):
    records = foreign_lines()
    change("train_samples", value="\x1b[2J" * 10_000)(records)
    code, _, err = ingest(records)
    assert (code, err.count("\n"), len(err) < 400, "\x1b" in err) == (2, 1, True, False)


@pytest.mark.parametrize("option", ["--output", "--source", "--system", "--workload", "--problem"])
def test_a_name_that_no_file_system_takes_is_one_line(ingest, option):
    code, out, err = ingest(foreign_lines(), option, "x" * 300, disclose=False)
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_a_log_whose_name_no_file_system_takes_is_one_line(tmp_path, hpcai500):
    for words in ((), ("--run", "true")):
        code, out, err = hpcai500("ingest", tmp_path / ("x" * 300), *WORDS, "--output", tmp_path / "results", *words)
        assert (code, out, err.count("\n")) == (2, "", 1)


def test_the_notes_say_that_the_count_rests_on_the_program_s_own_table(ingest, results):
    records = foreign_lines()
    change("hpcai500.model", value={"num_parameters": 1, "layer_flops": {"matrix": 1e18}})(records)
    change("hpcai500.flops_per_sample", value={"mean": 3e18, "standard_deviation": 0})(records)
    for record in records:
        if record["key"] == "hpcai500.epoch":
            record["value"]["flops"] = 1408 * 3e18
    assert ingest(records)[0] == 0
    assert rules(results) == []
    (report,) = check([results])
    # by hand: 4 epochs x 1,408 samples x 3e18 FLOPs over 40.4 s, on one rank
    assert f"{4 * 1408 * 3e18 / 40.4:.4g} FLOPS per rank" in "\n".join(report.notes)


def without(number):
    return {key: value for key, value in LAYERS.items() if key != number}


@pytest.mark.parametrize("number", [1, 3, 5, 9])
def test_a_layer_that_is_neither_captured_nor_stated_is_a_breach(ingest, results, number):
    assert ingest(foreign_lines(layers=without(number)))[0] == 0
    assert rules(results) == ["4.7"]


def test_a_source_that_was_not_given_is_a_breach(ingest, results):
    ingest(foreign_lines(), disclose=False)
    assert rules(results) == ["4.7"]


@pytest.mark.parametrize(
    ("spoil", "rule"),
    [
        (change("hpcai500.dataset", value={"digest": "0" * 16}), "4.2"),
        (change("train_samples", value=100), "1.3"),
        (change("hpcai500.flops_per_sample", value={"mean": 1e9, "standard_deviation": 0}), "3.4"),
        (change("eval_accuracy", value=0.99), "3.2"),
        (change("run_stop", metadata={"status": "aborted"}), "1.7"),
        (change("hpcai500.dataset", value={"synthetic": True}), "1.7"),
    ],
)  # fmt: skip
def test_a_foreign_program_is_held_to_the_rules(ingest, results, spoil, rule):
    records = foreign_lines()
    spoil(records)
    assert ingest(records)[0] == 0
    assert rule in rules(results)


@pytest.mark.parametrize("stated", [{"target_quality": 0.5}, {"num_epochs": 3}, {"metric": "luck"}])
def test_layer_9_as_stated_is_held_against_the_reference(ingest, results, stated):
    assert ingest(foreign_lines(layers={**LAYERS, 9: {**LAYERS[9], **stated}}))[0] == 0
    assert "4.1" in rules(results)


REPLAY = """#!/bin/sh
# replays a log with the time of this moment in each line: a program in another language
while IFS= read -r line; do
  case $line in *'"key": "epoch_start"'*) sleep 0.2 ;; esac
  now=$(date +%s%3N)
  printf '%s\\n' "$line" | sed "s/\\"time_ms\\": [0-9]*/\\"time_ms\\": $now/"
done < "$1"
"""
LIE = """#!/bin/sh
# the same, at a clock that stands still
now=$(date +%s%3N)
while IFS= read -r line; do
  case $line in *'"key": "epoch_start"'*) sleep 0.4 ;; esac
  now=$((now + 1))
  printf '%s\\n' "$line" | sed "s/\\"time_ms\\": [0-9]*/\\"time_ms\\": $now/"
done < "$1"
"""
OLD = """#!/bin/sh
# hands out the log of long ago
cat "$1"
"""


@pytest.mark.parametrize(("script", "rule"), [(REPLAY, None), (LIE, "2.4"), (OLD, "2.4")], ids="hlo")
def test_a_program_that_we_ran_is_held_against_our_clock(tmp_path, results, source, hpcai500, script, rule):
    program = source / "program.sh"
    program.write_text(script)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    template = tmp_path / "template"
    template.write_text(text_of(foreign_lines(epoch_sec=0.2)))
    words = ("--source", source, "--output", results, "--run", program, template)
    code, out, err = hpcai500("ingest", tmp_path / "out.log", *WORDS, *words)
    assert code == 0, err
    assert out.startswith(":::MLLOG")
    assert (rules(results)[:1] or [None]) == [rule]
    (report, *_) = check([results])
    assert any("captured" in line for line in report.changes if line.startswith("Layer 1"))
    (record,) = (json.loads(path.read_text())["program"] for path in results.rglob("run.json"))
    assert (record["command"], record["num_arguments"]) == ([str(program)], 1)
    code, _, err = hpcai500("ingest", tmp_path / "out.log", *WORDS, *words)
    assert (code, "already exists" in err) == (2, True)


def test_no_argument_of_a_program_is_kept_but_its_script(tmp_path, results, source, hpcai500):
    script = source / "replay.py"
    script.write_text("import sys; print(open(sys.argv[1]).read())")
    template = tmp_path / "template"
    template.write_text(text_of(foreign_lines()))
    words = (sys.executable, "-B", script, template, "--api-token", "hunter2secret", "--verbosely", "x" * 5_000)
    code, _, err = hpcai500(
        "ingest", tmp_path / "out.log", *WORDS, "--source", source, "--output", results, "--run", *words
    )
    assert code == 0, err
    assert hpcai500("package", results, "--output", tmp_path / "set.zip")[0] == 0
    with zipfile.ZipFile(tmp_path / "set.zip") as archive:
        texts = [archive.read(name) for name in archive.namelist()]
    texts += [path.read_bytes() for path in results.rglob("*") if path.is_file()]
    assert not any(word in text for text in texts for word in (b"hunter2secret", b"--api-token", b"--verbosely"))
    (run,) = results.rglob("run.json")
    program = json.loads(run.read_text())["program"]
    assert (program["command"], program["num_arguments"]) == ([sys.executable, str(script)], 6)


def test_a_program_that_fails_or_is_not_there_is_one_line(tmp_path, results, hpcai500):
    log = tmp_path / "out.log"
    words = ("ingest", log, *WORDS, "--output", results, "--run")
    code, _, err = hpcai500(*words, sys.executable, "-c", "print('half'); raise SystemExit(3)")
    assert (code, "ended with exit code 3" in err, err.count("\n")) == (1, True, 1)
    assert log.read_text() == "half\n"
    log.unlink()
    code, _, err = hpcai500(*words, "/absent/program")
    assert (code, "/absent/program" in err, log.exists()) == (2, True, False)
    assert hpcai500(*words)[0] == 2
    assert not results.exists()
