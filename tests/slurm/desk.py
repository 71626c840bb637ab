"""A user of the testbed's cluster."""

import contextlib
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

from hpcai500.cli.main import main
from hpcai500.events.reader import find, read_events

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests" / "integration" / "tiny"
HPCAI500 = (sys.executable, "-m", "hpcai500.cli.main")


class Desk:
    """A user's folder on the shared disk, with orders for the tiny workload in the folder `data`."""

    def __init__(self, cluster, folder):
        self.cluster = cluster
        self.folder = folder
        self.data = folder / "data"
        self.results = folder / "results"
        self.data.mkdir(parents=True)

    def hpcai500(self, *arguments, check=True, env=None):
        """Run a command in this process, since starting Python takes longer than most commands."""
        env = {**(env or self.cluster.env), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        out, err = io.StringIO(), io.StringIO()
        with (
            mock.patch.dict(os.environ, env, clear=True),
            contextlib.chdir(self.cluster.shared),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            code = main([str(argument) for argument in arguments])
        assert code == 0 or not check, f"{arguments} exits with {code}: {err.getvalue()}{out.getvalue()}"
        return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())

    def submit(self, *arguments, workload=TINY, command="submit", check=True, env=None):
        return self.hpcai500(
            command, workload, "--problem", "mini", "--data", self.data, "--output", self.results,
            "--site", "testbed", "--deterministic", *arguments, check=check, env=env,
        )  # fmt: skip

    def submitted(self, *arguments, **options):
        """The output of `submit --json`."""
        return json.loads(self.submit(*arguments, "--json", **options).stdout)["submitted"]

    def status(self, env=None):
        rows = json.loads(self.hpcai500("status", self.results, "--json", check=False, env=env).stdout)
        return {row["seed"]: row for row in rows}

    def wait_until_over(self, timeout=150):
        """Wait until no run is queued or running, and return the output of `status`."""
        deadline = time.monotonic() + timeout
        while self.cluster.run("squeue", "--me", "--noheader").stdout.strip() or self.is_waiting():
            assert time.monotonic() < deadline, self.status()
            time.sleep(0.3)
        return self.status()

    def is_waiting(self):
        return any(row["state"] in ("queued", "running") for row in self.status().values())

    def wait_for_event(self, key, count=1, timeout=60):
        deadline = time.monotonic() + timeout
        while True:
            logs = list(self.results.rglob("events.log"))
            if logs and len(find(read_events(logs[0]), key)) >= count:
                return logs[0].parent
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.1)

    def said(self):
        return self.hpcai500("logs", self.results, check=False).stdout[-3_000:]
