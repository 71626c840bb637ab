"""ReFrame checks that validate the nodes of a job and train both mini workloads.

Their figures are performance variables.

    reframe -C slurm/reframe/testbed_settings.py -c slurm/reframe/hpcai500_checks.py --run

Variables of the environment:

- HPCAI500: the command, `hpcai500` by default.
- HPCAI500_NODES: nodes of each job, 2 by default.
- HPCAI500_EXPECTED: a file of expected values for `validate --expected`, which become the references.
- HPCAI500_VALIDATE_OPTIONS and HPCAI500_RUN_OPTIONS: further options of `validate` and of `run`.
"""

import json
import os
import shlex
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path

import reframe as rfm
import reframe.utility.sanity as sn
from reframe.core.backends import getlauncher
from reframe.core.builtins import parameter, run_after, run_before, sanity_function
from reframe.core.exceptions import SanityError

COMMAND = os.environ.get("HPCAI500", "hpcai500")
NODES = int(os.environ.get("HPCAI500_NODES", "2"))
EXPECTED = os.environ.get("HPCAI500_EXPECTED", "")


def expectations():
    return tomllib.loads(Path(EXPECTED).read_text()).get("expect", []) if EXPECTED else []


class Command(rfm.RunOnlyRegressionTest):
    """A command that starts its own ranks on the nodes of its job, and prints JSON."""

    valid_systems = ["*"]  # noqa: RUF012 - ReFrame copies it
    valid_prog_environs = ["*"]  # noqa: RUF012
    executable = COMMAND
    num_tasks = NODES
    num_tasks_per_node = 1

    @run_before("run")
    def start_it_once(self):
        self.job.launcher = getlauncher("local")()

    def printed(self):
        text, complaint = (
            (Path(self.stagedir) / str(name)).read_text().strip() for name in (self.stdout, self.stderr)
        )
        if not text:
            raise SanityError((complaint or "the command printed nothing").splitlines()[-1])
        return json.loads(text)

    def perform(self, figures):
        """Set performance variables from `(name, value, unit)`, with the expected values as references."""
        self.perf_variables = {
            name: sn.make_performance_function(lambda value=value: value, unit) for name, value, unit in figures
        }
        references = {}
        for name, _, unit in figures:
            for one in expectations():
                if fnmatchcase(name, one["metric"]) and not isinstance(one["reference"], str):
                    references[name] = (one["reference"], one.get("lower"), one.get("upper"), unit)
        if references:
            self.reference = {"*": references}


@rfm.simple_test
class ValidateNodes(Command):
    """`hpcai500 validate` on the nodes of the job, with the worst value of each figure over all nodes or links."""

    @run_after("init")
    def options(self):
        expected = ["--expected", str(Path(EXPECTED).absolute())] if EXPECTED else []
        further = shlex.split(os.environ.get("HPCAI500_VALIDATE_OPTIONS", ""))
        self.executable_opts = ["validate", "--json", *expected, *map(shlex.quote, further)]

    @sanity_function
    def passes(self):
        report = self.printed()
        failures = "; ".join(found["message"] for found in report["findings"] if found["severity"] == "fail")
        return sn.assert_ne(report["verdict"], "fail", msg=failures or "validate failed")

    @run_before("performance")
    def figures(self):
        self.perform(
            [
                (variable(metric), metric["worst"], metric["unit"])
                for metric in self.printed()["metrics"]
                if metric["worst"] is not None and metric["stage"] not in ("inventory", "health")
            ]
        )


def variable(metric):
    """The name of a variable, `links/link_bytes_per_sec`; for collectives, with the number of nodes."""
    over = f"_{metric['num_nodes']}_nodes" if metric["stage"] == "collectives" else ""
    return f"{metric['stage']}/{metric['metric']}{over}"


@rfm.simple_test
class MiniWorkload(Command):
    """`hpcai500 run` of a mini problem, with the figures of the ranking."""

    workload = parameter(["image_classification", "extreme_weather"])

    @run_after("init")
    def options(self):
        further = shlex.split(os.environ.get("HPCAI500_RUN_OPTIONS", ""))
        make = {"image_classification": "prepare", "extreme_weather": "synthesize"}[self.workload]
        if "--data" not in further:
            self.prerun_cmds = [f"{COMMAND} data {make} {self.workload} --problem mini >&2"]
        self.executable_opts = ["run", self.workload, "--problem", "mini", "--json", *map(shlex.quote, further)]

    @sanity_function
    def trains_to_the_end(self):
        return sn.assert_eq([result["status"] for result in self.printed()], ["success"] * len(self.printed()))

    @run_before("performance")
    def figures(self):
        result = self.printed()[0]
        self.perform(
            [
                (f"{self.workload}/vflops", result["score"]["vflops"], "FLOPS"),
                (f"{self.workload}/flops", result["flops"]["flops"], "FLOPS"),
                (f"{self.workload}/quality", result["score"]["achieved_quality"], result["score"]["metric"]),
                (f"{self.workload}/time_sec", result["time"]["total_sec"], "s"),
            ]
        )
