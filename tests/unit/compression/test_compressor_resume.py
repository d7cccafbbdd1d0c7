"""A killed compression goes on where it stopped and ends with the same bits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from foveal.compression.block_files import BlockFiles
from foveal.compression.calibration import CalibrationSet
from foveal.compression.compressor import compress
from foveal.compression.records import BlockResult, LinearRecord
from foveal.core.errors import StorageError
from foveal.kernels.quantisation.affine import quantise
from foveal.kernels.quantisation.scheme import LinearScheme, WeightScheme, parse_linear
from foveal.models.quantised.input_rounding import StaticInput
from support.tiny_models import tiny_checkpoint
from support.tiny_recipes import EVERY_KIND, tiny_recipe, tiny_rule

ROUNDED = tiny_recipe(tiny_rule("rtn", "int4-g32"), tiny_rule("nf4", "nf4-g32-dq", ("embedding",)))
PAIRS = CalibrationSet.from_rendered_tasks(16)
CHILD = """
import sys
from foveal.compression.calibration import CalibrationSet
from foveal.compression.compressor import compress
from support.tiny_recipes import EVERY_KIND

def show(progress):
    print(progress.name, flush=True)
    sys.stdin.readline()

compress(sys.argv[1], EVERY_KIND, CalibrationSet.from_rendered_tasks(16), sys.argv[2], progress=show)
"""


def run(work, recipe=ROUNDED, **options):
    steps = []
    result = compress(tiny_checkpoint("llava"), recipe, PAIRS, work, progress=steps.append, **options)
    return result, steps


def same(one, other):
    assert one.linears == other.linears
    assert one.weights.keys() == other.weights.keys()
    for name, weight in one.weights.items():
        twin = other.weights[name]
        assert torch.equal(weight.codes, twin.codes), name
        assert torch.equal(weight.scale, twin.scale), name
        assert (weight.zero_point is None) == (twin.zero_point is None)
        assert weight.zero_point is None or torch.equal(weight.zero_point, twin.zero_point)
    assert one.replaced.keys() == other.replaced.keys()
    assert all(torch.equal(tensor, other.replaced[name]) for name, tensor in one.replaced.items())
    assert (one.image_weight, one.image_weight_losses) == (other.image_weight, other.image_weight_losses)


@pytest.mark.slow
def test_a_process_killed_in_the_middle_is_resumed_to_the_same_bits(tmp_path):
    tests = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": tests, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tiny_checkpoint("llava")), str(tmp_path / "killed")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        names = []
        for _ in range(6):  # three tower layers, the projector, the embedding, the first decoder layer
            names.append(child.stdout.readline().strip())
            if len(names) < 6:
                child.stdin.write("\n")
                child.stdin.flush()
        assert names[-1] == "model.language_model.layers.0"
        child.send_signal(signal.SIGKILL)
        assert child.wait(30) == -signal.SIGKILL
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()

    resumed, steps = run(tmp_path / "killed", EVERY_KIND)
    whole, _ = run(tmp_path / "whole", EVERY_KIND)

    assert [step.resumed for step in steps] == [True] * 6 + [False] * (len(steps) - 6)
    same(resumed, whole)


def test_a_second_run_reads_everything_and_a_run_without_resume_computes_everything(tmp_path):
    first, _ = run(tmp_path)
    second, steps = run(tmp_path)
    same(first, second)
    assert all(step.resumed for step in steps)
    third, steps = run(tmp_path, resume=False)
    same(first, third)
    assert not any(step.resumed for step in steps)


def test_a_damaged_block_file_is_computed_again(tmp_path):
    first, _ = run(tmp_path)
    path = tmp_path / "model.language_model.layers.1.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    second, steps = run(tmp_path)
    same(first, second)
    assert [step.name for step in steps if not step.resumed] == ["model.language_model.layers.1"]


def example():
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    result = BlockResult()
    for name in ("int4-g32-asym", "w8a8-static-asym", "nf4-g32-dq", "fp8"):
        scheme = parse_linear(name)
        result.weights[name], result.schemes[name] = quantise(weight, scheme.weight), scheme
    result.static_inputs["w8a8-static-asym"] = StaticInput(torch.tensor([0.5]), torch.tensor([3], dtype=torch.int32))
    result.replaced["norm.weight"] = torch.ones(4, dtype=torch.bfloat16)
    result.records.append(LinearRecord("a", "ffn", "rtn", "int8", loss=0.1, sqnr_db=3.0, note="so"))
    return result


def test_a_block_file_gives_back_every_bit(tmp_path):
    files = BlockFiles(tmp_path, "job")
    written = example()
    files.save("block", written)
    read = files.load("block")
    assert read.records == written.records
    assert read.schemes == written.schemes
    for name, weight in written.weights.items():
        assert torch.equal(read.weights[name].codes.float(), weight.codes.float())
        assert read.weights[name].codes.dtype == weight.codes.dtype
        assert torch.equal(read.weights[name].dequantise(), weight.dequantise())
        assert (read.weights[name].nested is None) == (weight.nested is None)
    assert torch.equal(read.static_inputs["w8a8-static-asym"].zero_point, torch.tensor([3], dtype=torch.int32))
    assert read.replaced["norm.weight"].dtype == torch.bfloat16
    assert [path.name for path in tmp_path.iterdir()] == ["block.safetensors"]


def test_files_of_another_job_and_half_written_ones_are_not_read(tmp_path):
    BlockFiles(tmp_path, "job").save("block", example())
    assert BlockFiles(tmp_path, "other").load("block") is None
    (tmp_path / "late.partial").write_bytes(b"half")
    assert BlockFiles(tmp_path, "job").load("late") is None


def test_a_full_disk_is_explained():
    files = BlockFiles.__new__(BlockFiles)
    files.folder, files.job = Path("/dev/full"), "job"
    with pytest.raises(StorageError):
        files.save("block", BlockResult(schemes={"a": LinearScheme(WeightScheme())}))
