"""Every method on tiny LLaVA, Qwen2.5-VL, Idefics3, SmolVLM and InternVL: compress, write, reload.

python benchmarks/acceptance/compress_06_families.py
"""

from __future__ import annotations

from harness_path import run_tests

if __name__ == "__main__":
    run_tests(
        "acceptance_compress_06_families",
        ["tests/integration/test_compress_families.py", "tests/integration/test_quantised_checkpoints.py"],
    )
