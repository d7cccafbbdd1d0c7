"""Trains the demo model's adapter: `python -m foveal.demo.training --folder run --clip-art DIR`.

Two hours at most on two CPU cores; every step is skipped or resumed when its result is there.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from foveal.demo.sources import default_cache_dir
from foveal.demo.training.joint import JointConfig
from foveal.demo.training.pool import PoolSizes
from foveal.demo.training.workspace import Workspace

__all__ = ["joint_worker", "main", "make_workspace", "parse_arguments"]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m foveal.demo.training", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="intermediate files, about 2.5 GB")
    parser.add_argument("--cache-dir", type=Path, default=default_cache_dir(), help="downloaded parts")
    parser.add_argument("--clip-art", type=Path, help="folder usr/share/openclipart/png of Debian's openclipart-png")
    parser.add_argument("--output", type=Path, default=Path("adapter.safetensors"))
    parser.add_argument("--warm-minutes", type=float, default=5.0, help="projector alone (default 5)")
    parser.add_argument("--minutes", type=float, default=93.0, help="projector and language model (default 93)")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each (default 2)")
    parser.add_argument("--no-int8", action="store_true", help="frozen products in fp32 (slower)")
    parser.add_argument("--pictures", type=float, default=1.0, help="share of the training data, for a quick try")
    return parser.parse_args()


def make_workspace(options: argparse.Namespace) -> Workspace:
    options.folder.mkdir(parents=True, exist_ok=True)
    full = PoolSizes()
    sizes = PoolSizes(*(max(8, round(options.pictures * value)) for value in vars(full).values()))
    log = (options.folder / "log.txt").open("a", buffering=1)

    def report(line: str) -> None:
        stamped = f"{time.strftime('%H:%M:%S')} {line}"
        print(stamped, flush=True)
        log.write(stamped + "\n")

    texts = max(6, round(300 * options.pictures))
    return Workspace(options.folder, options.cache_dir, options.clip_art, sizes, report, texts)


def joint_worker(rank: int, options: argparse.Namespace) -> None:
    """One process of the long run. Gradients are averaged over processes: on a busy machine one thread each is faster
    than two threads that wait for one another in every small operation."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    if options.workers > 1:
        rendezvous = f"file://{(options.folder / 'rendezvous').absolute()}"
        dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=options.workers)
    make_workspace(options).joint(JointConfig(minutes=options.minutes), int8=not options.no_int8)
    if dist.is_initialized():
        dist.destroy_process_group()


def main() -> None:
    options = parse_arguments()
    torch.manual_seed(0)
    torch.set_flush_denormal(True)
    workspace = make_workspace(options)
    workspace.features()
    workspace.rehearsal()
    workspace.warm_start(options.warm_minutes)
    (options.folder / "rendezvous").unlink(missing_ok=True)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    multiprocessing.spawn(joint_worker, (options,), nprocs=options.workers)
    workspace.export(options.output)
