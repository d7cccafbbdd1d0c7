"""Every quantiser against its oracle: float64 textbook, codebook, packers, SQNR theory, reloads.

    python benchmarks/acceptance/compress_01_oracles.py

Runs the tests that hold the oracles and prints them by name.
"""

from __future__ import annotations

from harness_path import ROOT, run_tests

TESTS = (
    "tests/unit/kernels/quantisation",
    "tests/unit/compression/methods",
    "tests/unit/compression/formats",
    "tests/unit/models/quantised",
    "tests/integration/test_quantised_checkpoints.py",
)

if __name__ == "__main__":
    run_tests("acceptance_compress_01_oracles", [test for test in TESTS if (ROOT / test).exists()])
