"""Our GPTQ, AWQ and NF4 checkpoints, read back by others: equal to what we say is in them?

Readers: GPTQModel in its own environment (--gptqmodel-python; left out without it), numpy from the published layouts,
and bitsandbytes through transformers. Compared are every weight (float16 where the reader computes in float16) and the
logits against those of the dense model with our dequantised weights.

python benchmarks/peers/read_layouts.py --model LANGUAGE_MODEL --gptqmodel-python READER/bin/python
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

sys.path.insert(0, str(Path(__file__).parents[1]))
from harness.record import write_result
from published_layouts import read_awq, read_gptq

from foveal.compression.formats.writer import write_checkpoint
from foveal.kernels.quantisation.affine import QuantisedWeight, quantise
from foveal.kernels.quantisation.scheme import LinearScheme, parse_linear

Weights = dict[str, torch.Tensor]

_CASES = (
    ("gptq", "int4-g64"),
    ("gptq", "int4-g64-asym"),
    ("gptq", "int8-g64"),
    ("awq", "int4-g64"),
    ("awq", "int4-g64-asym"),
    ("bnb-nf4", "nf4-g64"),
    ("bnb-nf4", "nf4-g64-dq"),
)
_TOKENS = tuple(range(100, 132))


def shortened(model: Path, layers: int, out: Path) -> PreTrainedModel:
    """The first layers of a checkpoint, written to `out` with its tokenizer."""
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    loaded.model.layers = loaded.model.layers[:layers]
    loaded.config.num_hidden_layers = layers
    loaded.save_pretrained(out)
    AutoTokenizer.from_pretrained(model).save_pretrained(out)
    return loaded.eval()


def rounded(model: PreTrainedModel, scheme: LinearScheme) -> dict[str, QuantisedWeight]:
    return {
        name: quantise(module.weight.detach(), scheme.weight)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name != "lm_head"
    }


@torch.inference_mode()
def dense_logits(model: PreTrainedModel, weights: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Logits [tokens, vocabulary] with `weights` in place; the model is left as it was."""
    kept = {name: model.get_submodule(name).weight.data for name in weights}
    for name, weight in weights.items():
        model.get_submodule(name).weight.data = weight
    logits = model(torch.tensor([_TOKENS])).logits[0]
    for name, weight in kept.items():
        model.get_submodule(name).weight.data = weight
    return logits


def by_numpy(checkpoint: Path, bits: int) -> Weights:
    stored = load_file(checkpoint / "model.safetensors")
    names = [name.removesuffix(".qweight") for name in stored if name.endswith(".qweight")]
    layout = json.loads((checkpoint / "config.json").read_text())["quantization_config"].get("checkpoint_format")
    version = 2 if layout == "gptq_v2" else 1
    read = {}
    for name in names:
        parts = {part: stored[f"{name}.{part}"].numpy() for part in ("qweight", "qzeros", "scales")}
        ordered = f"{name}.g_idx" in stored
        order = {"g_idx": stored[f"{name}.g_idx"].numpy(), "bits": bits, "version": version} if ordered else None
        weight = read_awq(**parts) if order is None else read_gptq(**parts, **order)
        read[name] = torch.from_numpy(weight.copy())
    return read


class ReadingRefusedError(Exception):
    """A reader does not take this checkpoint; its own last words."""


def by_gptqmodel(checkpoint: Path, method: str, python: str) -> tuple[Weights, torch.Tensor]:
    out = checkpoint / "read.safetensors"
    script = str(Path(__file__).with_name("gptqmodel_read.py"))
    command = [python, script, "--checkpoint", str(checkpoint), "--method", method, "--out", str(out)]
    done = subprocess.run([*command, "--tokens", *map(str, _TOKENS)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ReadingRefusedError((done.stderr.strip() or done.stdout.strip()).splitlines()[-1])
    tensors = load_file(out)
    logits = tensors.pop("logits")
    return tensors, logits


@torch.inference_mode()
def by_bitsandbytes(checkpoint: Path) -> tuple[Weights, torch.Tensor, list[str]]:
    """(weights, logits, keys that transformers missed or did not expect). The checkpoint's own config says how."""
    import bitsandbytes

    model, info = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, output_loading_info=True)
    read = {}
    for name, module in model.named_modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            state = module.weight.quant_state
            state.dtype = torch.float32  # of `dequantize_4bit` alone; the forward pass goes by its input
            read[name] = bitsandbytes.functional.dequantize_4bit(module.weight.data, state)
    return read, model(torch.tensor([_TOKENS])).logits[0].float(), [*info["missing_keys"], *info["unexpected_keys"]]


def findings(
    reader: str, ours: Weights, read: Weights, logits: tuple[torch.Tensor, torch.Tensor] | None = None
) -> dict[str, Any]:
    """How the reader's weights compare with ours, and its logits with the dense model's."""
    half = next(iter(read.values())).dtype == torch.float16
    expected = {name: weight.half() if half else weight for name, weight in ours.items()}
    worst = max(float((read[name].float() - expected[name].float()).abs().max()) for name in expected if name in read)
    row: dict[str, Any] = {
        "reader": reader,
        "linears": len(ours),
        "bit_equal": sum(torch.equal(read[name], expected[name]) for name in expected if name in read),
        "largest_weight_difference": worst,
    }
    if logits is not None:
        difference = (logits[0] - logits[1]).pow(2).mean().sqrt() / logits[1].std()
        row["logits_relative_rms"] = float(difference)
        row["same_top_token"] = float((logits[0].argmax(-1) == logits[1].argmax(-1)).float().mean())
    return row


def read_back(
    method: str, scheme_name: str, model: PreTrainedModel, source: Path, work: Path, python: str | None
) -> Iterator[dict[str, Any]]:
    """Write one checkpoint and have every reader read it."""
    scheme = parse_linear(scheme_name)
    quantised = rounded(model, scheme)
    checkpoint = work / f"{method}-{scheme_name}"
    write_checkpoint(source, checkpoint, quantised, dict.fromkeys(quantised, scheme), format=method)
    ours = {name: weight.dequantise() for name, weight in quantised.items()}
    dense = dense_logits(model, ours)
    case = {"layout": method, "scheme": scheme_name}
    if method == "bnb-nf4":
        read, logits, strange = by_bitsandbytes(checkpoint)
        yield case | findings("bitsandbytes", ours, read, (logits, dense)) | {"strange_keys": strange}
        return
    yield case | findings("numpy", ours, by_numpy(checkpoint, scheme.weight.bits))
    if python is not None:
        try:
            read, logits = by_gptqmodel(checkpoint, method, python)
        except ReadingRefusedError as refusal:
            yield case | {"reader": "GPTQModel", "refused": str(refusal)}
        else:
            yield case | findings("GPTQModel", ours, read, (logits, dense))


def show(rows: list[dict[str, Any]]) -> None:
    table = Table(title="our checkpoints, read by others")
    for heading in (
        "layout",
        "scheme",
        "reader",
        "linears",
        "bit-equal",
        "largest difference",
        "logits rms",
        "top token",
    ):
        table.add_column(heading, justify="left" if heading in ("layout", "scheme", "reader") else "right")
    for row in rows:
        if "refused" in row:
            table.add_row(row["layout"], row["scheme"], row["reader"], "refused")
            continue
        logits = (
            (f"{row['logits_relative_rms']:.1e}", f"{row['same_top_token']:.0%}") if "same_top_token" in row else ()
        )
        numbers = (str(row["linears"]), str(row["bit_equal"]), f"{row['largest_weight_difference']:.1e}", *logits)
        table.add_row(row["layout"], row["scheme"], row["reader"], *numbers)
    Console(width=110).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="directory that language_model.py writes")
    parser.add_argument("--layers", type=int, default=2, help="layers of it to keep")
    parser.add_argument("--gptqmodel-python", help="interpreter of the environment with GPTQModel")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        model = shortened(options.model, options.layers, work / "dense")
        for method, scheme in _CASES:
            rows += read_back(method, scheme, model, work / "dense", work, options.gptqmodel_python)
    show(rows)
    sys.stdout.write(f"{write_result('peer_layout_readers', rows)}\n")
    wrong = [row for row in rows if "refused" in row or row["bit_equal"] != row["linears"]]
    wrong += [row for row in rows if row.get("strange_keys")]
    if wrong:
        raise SystemExit(f"{len(wrong)} of {len(rows)} readings differ, or the reader refused")


if __name__ == "__main__":
    main()
