"""Load a GPTQ or AWQ checkpoint with GPTQModel, and save the weights and logits that it makes of it.

Runs in the reader's environment, which has no foveal; see README.md.

READER_PYTHON benchmarks/peers/gptqmodel_read.py --checkpoint DIR --tokens 1 2 3 --out read.safetensors
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from gptqmodel import BACKEND, GPTQModel
from gptqmodel.nn_modules.qlinear import BaseQuantLinear
from gptqmodel.quantization.awq.utils.packing_utils import dequantize_gemm
from safetensors.torch import save_file


def dense(module: BaseQuantLinear, method: str) -> torch.Tensor:
    """[out, in], by the code that GPTQModel's own forward uses."""
    if method == "gptq":
        return module.dequantize_weight().T
    return dequantize_gemm(module.qweight, module.qzeros, module.scales, module.bits, module.group_size).T


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--method", choices=("gptq", "awq"), required=True)
    parser.add_argument("--tokens", type=int, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    backend = BACKEND.GPTQ_TORCH if options.method == "gptq" else BACKEND.AWQ_TORCH
    loaded = GPTQModel.load(options.checkpoint, device="cpu", backend=backend, dtype=torch.float16)
    tensors = {
        name.removeprefix("model.") if name.startswith("model.model.") else name: dense(module, options.method)
        for name, module in loaded.model.named_modules()
        if isinstance(module, BaseQuantLinear)
    }
    tensors["logits"] = loaded.model(torch.tensor([options.tokens])).logits[0].float()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, options.out)


if __name__ == "__main__":
    main()
