"""A user of the testbed's cluster."""

import json
import os
import sys
import time
from pathlib import Path

from hpcai500.events.reader import find, read_events

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests" / "integration" / "tiny"
HPCAI500 = (sys.executable, "-m", "hpcai500.cli.main")


class Desk:
    """A user's folder on the shared disk; `data` holds the orders that the tiny workload obeys."""

    def __init__(self, cluster, folder):
        self.cluster = cluster
        self.folder = folder
        self.data = folder / "data"
        self.results = folder / "results"
        self.data.mkdir(parents=True)

    def hpcai500(self, *arguments, check=True, env=None, timeout=60):
        env = {**(env or self.cluster.env), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        return self.cluster.run(*HPCAI500, *arguments, check=check, env=env, timeout=timeout)

    def submit(self, *arguments, workload=TINY, command="submit", check=True, env=None):
        return self.hpcai500(
            command, workload, "--problem", "mini", "--data", self.data, "--output", self.results,
            "--site", "testbed", "--deterministic", *arguments, check=check, env=env,
        )  # fmt: skip

    def submitted(self, *arguments, **options):
        """What `submit --json` says."""
        return json.loads(self.submit(*arguments, "--json", **options).stdout)["submitted"]

    def status(self, env=None):
        rows = json.loads(self.hpcai500("status", self.results, "--json", check=False, env=env).stdout)
        return {row["seed"]: row for row in rows}

    def wait_until_over(self, timeout=150):
        deadline = time.monotonic() + timeout
        while any(row["state"] in ("queued", "running") for row in self.status().values()):
            assert time.monotonic() < deadline, self.status()
            time.sleep(1)
        return self.status()

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
