"""Torch-free packages stay torch-free: importing them in a fresh interpreter loads no torch."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

import foveal

PACKAGES = [
    "foveal.core",
    "foveal.protocol",
    "foveal.observability",
    "foveal.artifacts",
    "foveal.planning",
    "foveal.evaluation",
    "foveal.engine.scheduling",
    "foveal.gateway",
]
MODULES = ["foveal", "foveal.engine.async_engine", "foveal.engine.server.app", "foveal.cli.app"]


def _modules() -> list[str]:
    found = [
        name
        for _, name, _ in pkgutil.walk_packages(foveal.__path__, "foveal.")
        if any(name == p or name.startswith(p + ".") for p in PACKAGES)
    ]
    return found + MODULES


def test_importing_torch_free_modules_loads_neither_torch_nor_transformers() -> None:
    code = (
        "import importlib, sys\n"
        f"for name in {_modules()!r}:\n"
        "    importlib.import_module(name)\n"
        "    heavy = {'torch', 'transformers'} & set(sys.modules)\n"
        "    assert not heavy, f'{name} loads {heavy}'\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_foveal_help_loads_no_torch(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        f"sys.argv = ['foveal', *{arguments!r}]\n"
        "from foveal.cli.app import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit:\n"
        "    pass\n"
        "assert 'torch' not in sys.modules\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
