"""Kernels where the system gives less than was asked for: fewer threads, small pages."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys

import pytest
import torch

native = pytest.importorskip("foveal.kernels._native", reason="the native kernels were not built")

from foveal.kernels.native import large_pages  # noqa: E402

PRODUCT = """
import torch
from foveal.kernels.native.linear import NativeLinear
from foveal.kernels.native.packed_matrix import pack_quantised
from foveal.kernels.quantisation.affine import quantise
from foveal.kernels.quantisation.scheme import parse_weight

torch.set_num_threads(2)
product = NativeLinear(pack_quantised(quantise(torch.eye(64), parse_weight("int8"))))(torch.ones(20, 64))
torch.testing.assert_close(product, torch.ones(20, 64), atol=0, rtol=2e-3)
"""


@pytest.mark.parametrize("setting", ["OMP_THREAD_LIMIT=1", "OMP_NUM_THREADS=2"])
def test_a_step_ends_whatever_number_of_threads_openmp_grants(setting: str) -> None:
    name, value = setting.split("=")
    subprocess.run([sys.executable, "-c", PRODUCT], env={**os.environ, name: value}, check=True, timeout=120)


def test_weights_load_where_the_kernel_has_no_large_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    class SmallPages(mmap.mmap):
        def madvise(self, *arguments: int) -> None:
            raise OSError(22, "Invalid argument")

    monkeypatch.setattr(large_pages.mmap, "mmap", SmallPages)
    copied = large_pages._Arena().take(1000)
    copied.copy_(torch.arange(1000).to(torch.uint8))
    assert copied[999] == 999 % 256
