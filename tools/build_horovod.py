"""Build Horovod for the torch of this Python, or use the wheel of an earlier build; install it and try it.

`make horovod` runs this. It needs a C++ compiler and Open MPI; the rest comes from PyPI. Horovod 0.28.1 asks for
C++14, with which torch since 2.1 does not compile. A wrapper around the compiler sets the standard that torch needs.
"""

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

HOROVOD = "horovod==0.28.1"
RECIPE = 1
"""Version of the build. Increase it if this file builds something else from the same parts."""
BUILD_REQUIREMENTS = ("setuptools", "wheel", "packaging", "cloudpickle", "psutil", "pyyaml", "cffi")
STANDARDS = ("c++17", "c++20", "c++23")
TRIAL_SEC = 120

TORCH_FACTS = """\
import json, sys, torch
from torch.utils.cpp_extension import include_paths
json.dump({
    "version": torch.__version__, "cuda": torch.version.cuda, "includes": include_paths(),
    "abi": torch.compiled_with_cxx11_abi(), "has_gpu": torch.cuda.is_available(),
    "capability": torch.cuda.get_device_capability() if torch.cuda.is_available() else None,
}, sys.stdout)
"""

TRIAL = """\
import torch, horovod.torch as hvd
hvd.init()
assert hvd.size() == 2, f"a world of {hvd.size()} instead of 2"
found = hvd.allreduce(torch.full((3,), hvd.rank() + 1.0), op=hvd.Sum).tolist()
assert found == [3.0] * 3, found
if torch.cuda.is_available() and hvd.nccl_built() and torch.cuda.device_count() > 1:
    found = hvd.allreduce(torch.full((3,), hvd.rank() + 1.0, device=f"cuda:{hvd.rank()}"), op=hvd.Sum).tolist()
    assert found == [3.0] * 3, found
hvd.shutdown()
"""


class Missing(Exception):
    """A missing part of the machine, and how to install it, in one line."""


class Torch(NamedTuple):
    version: str
    cuda: str | None
    includes: list[str]
    abi: bool
    has_gpu: bool
    capability: list[int] | None


class Parts(NamedTuple):
    """Everything that the result of the build depends on."""

    torch: Torch
    compiler: str
    mpi: str
    """Version of the MPI library."""
    cuda_home: Path | None
    nccl_home: Path | None
    """NCCL, if there is a GPU."""
    quick: bool = False
    """Whether to build without optimization."""

    def key(self) -> str:
        compiler = output(self.compiler, "-dumpfullversion", "-dumpversion")
        decisive = [
            HOROVOD, RECIPE, self.torch.version, self.torch.cuda, self.torch.abi, sysconfig.get_config_var("SOABI"),
            sysconfig.get_platform(), platform.libc_ver(), cpu_flags(), compiler, self.mpi,
            str(self.cuda_home and self.cuda_home.resolve()), self.nccl_home is not None, self.torch.capability,
            *(["quick"] if self.quick else []),
        ]  # fmt: skip
        digest = hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:12]
        return f"torch{self.torch.version}-{sysconfig.get_config_var('SOABI')}-{digest}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hpcai500" / "horovod"
    parser.add_argument("--cache", type=Path, default=default, metavar="DIR", help="where wheels are kept")
    parser.add_argument("--nccl", action="store_true", help="for GPUs too, on a machine that has none")
    parser.add_argument("--quick", action="store_true", help="without optimization: built sooner, for tests only")
    args = parser.parse_args()
    for asked in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(asked, lambda number, _: sys.exit(128 + number))  # ends with this process
    try:
        parts = find_parts(force_nccl=args.nccl)._replace(quick=args.quick)
        install(kept_wheel(parts, args.cache))
        for launcher in trials(parts):
            try_out(launcher)
    except Missing as error:
        print(f"horovod: {error}", file=sys.stderr)
        return 3
    print("horovod: ready; `hpcai500 run ... --backend horovod` uses it")
    return 0


def find_parts(*, force_nccl: bool) -> Parts:
    """Find all parts, print what is left out, and report everything that is missing at once."""
    found = {}
    lacks = []
    for name, find in {"torch": find_torch, "compiler": find_compiler, "mpi": find_mpi}.items():
        try:
            found[name] = find()
        except Missing as error:
            lacks.append(str(error))
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        lacks.append("Python's headers are missing: apt install python3-dev")
    if lacks:
        raise Missing("\nhorovod: ".join(lacks))
    torch = found["torch"]
    cuda_home = find_cuda() if torch.cuda else None
    nccl_home = find_nccl() if cuda_home else None
    if torch.cuda and not cuda_home:
        say("no CUDA toolkit (nvcc on PATH, or CUDA_HOME): between processors only")
    elif torch.cuda and not nccl_home:
        say("no NCCL (nccl.h and libnccl.so; NCCL_HOME): between processors only")
    elif cuda_home and not (torch.has_gpu or force_nccl):
        say("no GPU on this machine: between processors only (`tools/build_horovod.py --nccl` builds for GPUs too)")
        nccl_home = None
    return Parts(torch, found["compiler"], found["mpi"], cuda_home, nccl_home)


def find_torch() -> Torch:
    done = subprocess.run([sys.executable, "-c", TORCH_FACTS], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Missing(f"{sys.executable} cannot import torch: run `make install` first")
    return Torch(**json.loads(done.stdout))


def find_compiler() -> str:
    for name in (os.environ.get("CXX"), "g++", "c++", "clang++"):
        if name and (path := shutil.which(name)):
            return path
    raise Missing("no C++ compiler: apt install g++, or set CXX")


def find_mpi() -> str:
    if not shutil.which("mpirun"):
        raise Missing("no mpirun on PATH: apt install openmpi-bin, or `module load openmpi`")
    if not shutil.which("mpicxx"):
        raise Missing("no mpicxx on PATH, MPI's compiler: apt install libopenmpi-dev, or `module load openmpi`")
    version = output("mpirun", "--version").splitlines()[0]
    return f"{version} {Path(shutil.which('mpicxx') or '').resolve().parent}"


def find_cuda() -> Path | None:
    nvcc = shutil.which("nvcc")
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    homes += [str(Path(nvcc).resolve().parent.parent)] if nvcc else []
    return next((Path(home) for home in homes if home and Path(home, "bin", "nvcc").exists()), None)


def find_nccl() -> Path | None:
    """A folder with `include` and `lib`: the NCCL that torch itself loads, before any other."""
    own = Path(sysconfig.get_path("purelib"), "nvidia", "nccl")
    homes = [os.environ.get("NCCL_HOME"), str(own), "/usr/local/cuda", "/usr"]
    return next((Path(home) for home in homes if home and Path(home, "include", "nccl.h").exists()), None)


def cpu_flags() -> list[str]:
    """The variables that configure Horovod's build."""
    try:
        known = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:
        return []
    return [flag for flag in ("f16c", "avx", "fma") if flag in known]


def kept_wheel(parts: Parts, cache: Path) -> Path:
    """The wheel of an earlier build of the same parts, or else of a new build."""
    folder = cache / parts.key()
    if wheels := sorted(folder.glob("*.whl")):
        say(f"takes {wheels[0]}")
        return wheels[0]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Missing(f"wheels cannot be kept in {folder}: {error.strerror}; give another --cache") from error
    with tempfile.TemporaryDirectory(prefix="hpcai500-horovod-") as name:
        started = time.monotonic()
        wheel = build(parts, Path(name), cache)
        partial = folder / f".{wheel.name}.{os.getpid()}"
        shutil.copyfile(wheel, partial)
        partial.rename(folder / wheel.name)  # whole or not at all
        say(f"built in {time.monotonic() - started:.0f} s, kept in {folder}")
    return folder / wheel.name


def build(parts: Parts, work: Path, cache: Path) -> Path:
    """Build a wheel in `work`. If that fails, the log is kept in `cache`."""
    standard = find_standard(parts, work)
    say(f"builds {HOROVOD} for torch {parts.torch.version} in {standard}; this takes minutes")
    python = build_environment(work)
    env = build_variables(parts, work, standard)
    env["PATH"] = f"{python.parent}{os.pathsep}{env['PATH']}"
    log = work / "build.log"
    command = [
        sys.executable, "-m", "pip", "--python", str(python), "wheel", "--no-deps", "--no-build-isolation",
        "--no-binary=horovod", "--no-cache-dir", "--disable-pip-version-check", "--verbose",
        "--wheel-dir", str(work), HOROVOD,
    ]  # fmt: skip
    with log.open("w") as file:
        done = run_bounded(command, env=env, stdout=file, limit_sec=3_600)
    if done != 0:
        cache.mkdir(parents=True, exist_ok=True)
        kept = shutil.copyfile(log, cache / "build.log")
        raise Missing(f"the build failed: {first_error(log.read_text(errors='replace'))}; see {kept}")
    return next(work.glob("horovod-*.whl"))


def find_standard(parts: Parts, work: Path) -> str:
    """The oldest C++ standard in which torch's own headers compile."""
    source = work / "standard.cpp"
    source.write_text("#include <torch/extension.h>\n")
    places = [*parts.torch.includes, sysconfig.get_path("include")]
    places += [str(parts.cuda_home / "include")] if parts.cuda_home else []
    fault = ""
    for standard in STANDARDS:
        command = [
            parts.compiler,
            f"-std={standard}",
            "-fsyntax-only",
            "-fmax-errors=1",
            *(f"-I{place}" for place in places),
        ]
        done = subprocess.run([*command, str(source)], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return standard
        fault = first_error(done.stderr)
    raise Missing(f"{parts.compiler} compiles torch's headers in none of {', '.join(STANDARDS)}: {fault}")


def build_environment(work: Path) -> Path:
    """A Python in `work` that can import this one's torch. Packages only for the build are installed there."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(work / "venv")], check=True)
    python = work / "venv" / "bin" / "python"
    own, new = (
        sysconfig.get_path("purelib"),
        output(str(python), "-c", "import site; print(site.getsitepackages()[0])"),
    )
    Path(new, "of_the_caller.pth").write_text(f"import site; site.addsitedir({own!r})\n")
    cmake = [] if shutil.which("cmake") else ["cmake"]
    pip("--python", str(python), "install", "--ignore-installed", *BUILD_REQUIREMENTS, *cmake)
    return python


def build_variables(parts: Parts, work: Path, standard: str) -> dict[str, str]:
    wrapper = work / "c++"
    flags = f"-std={standard} -g0{' -O0' if parts.quick else ''}"
    wrapper.write_text(f'#!/bin/sh\nexec {parts.compiler} "$@" {flags}\n')  # later options take precedence
    wrapper.chmod(0o755)
    env = {name: value for name, value in os.environ.items() if not name.startswith("HOROVOD_")}
    env |= {f"HOROVOD_WITH_{part}": "1" for part in ("PYTORCH", "MPI", "GLOO")}
    env |= {f"HOROVOD_WITHOUT_{part}": "1" for part in ("TENSORFLOW", "MXNET")}
    env |= {"CXX": str(wrapper), "MAKEFLAGS": f"-j{len(os.sched_getaffinity(0))}"}
    env["CMAKE_POLICY_VERSION_MINIMUM"] = "3.5"  # Gloo's own scripts ask for an older version than CMake 4 supports
    if parts.cuda_home:
        env |= {"CUDA_HOME": str(parts.cuda_home), "HOROVOD_CUDA_HOME": str(parts.cuda_home)}
        env["CUDAHOSTCXX"] = parts.compiler
        major, minor = parts.torch.capability or (8, 0)
        env["HOROVOD_BUILD_CUDA_CC_LIST"] = f"{major}{minor}"  # and its PTX, which newer GPUs compile
    if parts.nccl_home:
        env |= {"HOROVOD_GPU_OPERATIONS": "NCCL", "HOROVOD_NCCL_LINK": "SHARED"}
        env["HOROVOD_NCCL_HOME"] = str(linkable_nccl(parts.nccl_home, work / "nccl"))
    return env


def linkable_nccl(home: Path, folder: Path) -> Path:
    """`home` with a link of the name that a linker needs, since torch's NCCL has only `libnccl.so.2`."""
    (folder / "lib").mkdir(parents=True)
    (folder / "include").symlink_to(home / "include")
    library = next((path for path in sorted(home.rglob("libnccl.so*"))), None)
    if library is None:
        raise Missing(f"{home} has nccl.h but no libnccl.so")
    (folder / "lib" / "libnccl.so").symlink_to(library)
    return folder


def install(wheel: Path) -> None:
    """Install the wheel into this Python with its dependencies, and mpi4py for the rendezvous under mpirun."""
    pip("install", "--force-reinstall", "--no-deps", str(wheel))
    pip("install", str(wheel), "mpi4py>=4")


def trials(parts: Parts) -> Iterator[list[str]]:
    """Commands that start two processes."""
    if "Open MPI" in parts.mpi:
        as_root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
        yield ["mpirun", "-np", "2", "--oversubscribe", "--bind-to", "none", *as_root]
    else:
        yield ["mpirun", "-np", "2"]
    yield [sys.executable, "-m", "horovod.runner.launch", "-np", "2", "--gloo", "--disable-cache"]


def try_out(launcher: Sequence[str]) -> None:
    """Check that two processes can sum a tensor."""
    name = "mpirun" if launcher[0] == "mpirun" else "horovodrun"
    env = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "OMPI_", "PMI"))}
    with tempfile.TemporaryFile("w+") as file:
        code = run_bounded([*launcher, sys.executable, "-c", TRIAL], env=env, stdout=file, limit_sec=TRIAL_SEC)
        file.seek(0)
        printed = file.read()
    if code is None:
        raise Missing(f"an all-reduce of 2 processes under {name} did not end within {TRIAL_SEC} s")
    if code != 0:
        raise Missing(f"an all-reduce of 2 processes under {name} failed: {first_error(printed)}")
    say(f"2 processes all-reduce under {name}")


def run_bounded(command: Sequence[str], *, env: dict[str, str], stdout: object, limit_sec: float) -> int | None:
    """The command's exit code; None if it had to be killed, together with all processes that it started."""
    process = subprocess.Popen(
        command, env=env, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        return process.wait(timeout=limit_sec)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments, "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Missing(f"pip {' '.join(arguments)}: {first_error(done.stderr)}")


def output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def first_error(text: str) -> str:
    """The most informative line of a build's output."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"\b(fatal )?error\b|Error:", line, re.IGNORECASE)]
    return (errors or lines or ["it printed nothing"])[0 if errors else -1]


def say(line: str) -> None:
    print(f"horovod: {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
