"""One virtual environment per peer gateway.

    python benchmarks/gateway/environments.py DIR [--only smg]

Wheels only: nothing is built, so no code of a package runs while it is installed. A wheel that would run code at every start
of the interpreter (a .pth file) ends that environment. A peer that does not install leaves its error in DIR/NAME/status.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PEERS", "Peer"]


@dataclass(frozen=True)
class Peer:
    requirement: str
    command: str
    """Its executable in the environment."""


PEERS = {
    "smg": Peer("smg==1.13.0", "smg"),
    "vllm-router": Peer("vllm-router==0.1.17", "vllm-router"),
    "litellm": Peer("litellm[proxy]==1.106.2", "litellm"),
}
_KNOWN_PTH = frozenset({"distutils-precedence.pth"})
"""setuptools' own."""


def install(peer: Peer, folder: Path) -> None:
    """Raises RuntimeError with pip's last lines."""
    venv.create(folder, with_pip=True, clear=True)
    command = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--only-binary", ":all:", peer.requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")] or [done.stderr[-500:]]
        raise RuntimeError(errors[-1].removeprefix("ERROR: "))
    hooks = [path.name for path in folder.rglob("*.pth") if path.name not in _KNOWN_PTH]
    if hooks:
        raise RuntimeError(f"it brings {', '.join(hooks)}, which would run at every start of the interpreter")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", choices=sorted(PEERS), default=sorted(PEERS))
    options = parser.parse_args()
    failed = 0
    for name in options.only:
        folder = options.folder.resolve() / name
        status_file = folder / "status.json"
        if status_file.exists():
            sys.stdout.write(f"{name}: already there; remove {folder} to make it anew\n")
            continue
        status: dict[str, object] = {"requirement": PEERS[name].requirement, "ok": True, "error": None}
        try:
            install(PEERS[name], folder)
        except RuntimeError as error:
            status |= {"ok": False, "error": str(error)}
            failed += 1
        folder.mkdir(parents=True, exist_ok=True)
        status_file.write_text(json.dumps(status, indent=1) + "\n")
        sys.stdout.write(f"{name}: {'ready' if status['ok'] else status['error']}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
