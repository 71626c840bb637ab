"""One rank that measures collectives: `python -m hpcai500.micro.worker request.json`, started by a launcher."""

import os
import sys
import traceback
from pathlib import Path

from hpcai500.errors import HpcAi500Error, format_failure
from hpcai500.files import write_atomic
from hpcai500.launch.registry import find_launcher
from hpcai500.micro.collectives import measure_collectives
from hpcai500.micro.launching import FINDINGS, CollectivesRequest, read_request
from hpcai500.ranks.joining import join_group
from hpcai500.ranks.placement import take_cores
from hpcai500.ranks.torch_ranks import first_line


def run(request: CollectivesRequest, folder: Path) -> None:
    ranks = join_group(request.layout, folder, os.environ)
    take_cores(ranks, os.environ)
    found = measure_collectives(ranks, sizes=request.sizes, budget_sec=request.budget_sec)
    if ranks.rank == 0:
        write_atomic(folder / FINDINGS, found.model_dump_json() + "\n")
    ranks.barrier()
    ranks.close()


def main() -> int:
    path = Path(sys.argv[1])
    request = read_request(path)
    try:
        run(request, path.parent)
        return 0
    except Exception as error:
        traceback.print_exc()
        failure = error
        if not isinstance(failure, HpcAi500Error):
            failure = HpcAi500Error(f"{type(error).__name__}: {first_line(error)}")
        sys.stderr.flush()
        os.write(2, f"{format_failure(failure, find_launcher(request.layout.launcher).rank(os.environ))}\n".encode())
        os._exit(failure.exit_code)  # other ranks may wait in a collective that will never end


if __name__ == "__main__":
    sys.exit(main())
