"""The memory guard: what is given up in which order, that it comes back, and that an engine under pressure goes on."""

from __future__ import annotations

import ctypes
import mmap
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foveal.core.errors import ConfigurationError, OverloadedError
from foveal.engine.config import EngineConfig
from foveal.engine.execution.kv_pool import allocate_kv_cache
from foveal.engine.memory.kv_pages import release_pages, runs_of
from foveal.engine.memory.linux_memory import LinuxMemory
from foveal.engine.memory.memory_guard import MemoryGuard
from foveal.engine.memory.memory_needs import check_pool, check_weights
from foveal.engine.memory.memory_reading import MemoryReading
from foveal.kernels.attention_batch import KVCache
from support.engine_driver import EngineDriver, greedy
from support.tiny_models import NUM_NEW_TOKENS, tiny_cases, tiny_model

GIB = 1 << 30


class FakeMemory:
    """A reader whose answer the test sets."""

    def __init__(self, pressure: float = 0.0, limit_bytes: int = 100 * GIB) -> None:
        self.pressure = pressure
        self.limit_bytes = limit_bytes

    def read(self) -> MemoryReading:
        return MemoryReading(int(self.pressure * self.limit_bytes), self.limit_bytes, "the test's memory")


def _reading(pressure: float) -> MemoryReading:
    return FakeMemory(pressure).read()


# --- decisions ------------------------------------------------------------------------------------------------------


def test_caches_go_first_then_sequences_and_requests_are_not_refused_below_critical() -> None:
    guard = MemoryGuard(10)
    seen = [guard.decide(_reading(0.9), num_running=10, has_prefixes=k == 4) for k in range(7)]
    assert [d.actions for d in seen] == [
        *[("shrink_features",)] * 4,
        ("drop_prefixes",),
        ("fewer_sequences",),
        ("fewer_sequences",),
    ]
    assert [d.max_num_seqs for d in seen[-2:]] == [8, 6]
    assert not any(d.refuses or d.preempts for d in seen)


def test_near_the_limit_everything_goes_at_once_and_requests_are_refused() -> None:
    guard = MemoryGuard(10)
    decision = guard.decide(_reading(0.96), num_running=10, has_prefixes=True)
    assert set(decision.actions) == {"shrink_features", "drop_prefixes", "fewer_sequences", "refuse"}
    assert decision.preempts
    assert decision.feature_share == 0.0
    assert guard.decide(_reading(0.84), num_running=8, has_prefixes=False).actions == ("accept",)


@given(st.lists(st.floats(0.5, 1.1), max_size=30), st.integers(1, 64))
def test_everything_comes_back_when_memory_does(pressures: list[float], seats: int) -> None:
    guard = MemoryGuard(seats)
    for pressure in pressures:
        decision = guard.decide(_reading(pressure), num_running=guard.state.max_num_seqs, has_prefixes=True)
        assert 1 <= decision.max_num_seqs <= seats
        assert 0.0 <= decision.feature_share <= 1.0
        if pressure >= 0.95:
            assert decision.refuses
    for _ in range(100):
        decision = guard.decide(_reading(0.3), num_running=1, has_prefixes=False)
    assert (decision.max_num_seqs, decision.feature_share, decision.refuses) == (seats, 1.0, False)
    assert decision.actions == ()


def test_between_the_thresholds_nothing_moves() -> None:
    guard = MemoryGuard(8)
    guard.decide(_reading(0.9), num_running=8, has_prefixes=False)
    share = guard.state.feature_share
    for _ in range(10):
        assert guard.decide(_reading(0.8), num_running=8, has_prefixes=True).actions == ()
    assert guard.state.feature_share == share


# --- an engine under pressure ---------------------------------------------------------------------------------------


@pytest.fixture
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.usefixtures("_one_thread")
@pytest.mark.parametrize("family", ["llava", "llama"])
def test_answers_are_the_same_under_pressure_and_nothing_leaks(family: str) -> None:
    memory = FakeMemory()
    driver = EngineDriver(tiny_model(family), memory=memory, max_num_seqs=4)
    cases = tiny_cases(family)
    levels = [0.5, 0.9, 0.9, 0.96, 0.99, 0.9, 0.6]

    def squeeze(step: int) -> None:
        driver.clock.advance(0.3)  # so that every step reads
        memory.pressure = levels[step % len(levels)]

    names = [driver.add(case.prompt, greedy(NUM_NEW_TOKENS)) for case in cases]
    driver.run(before_step=squeeze)
    assert [driver.tokens[name, 0] for name in names] == [list(case.expected) for case in cases]
    assert driver.loop.memory is not None
    assert driver.loop.memory.actions["fewer_sequences"] > 0
    memory.pressure = 0.1
    for _ in range(60):
        driver.clock.advance(0.3)
        driver.loop.memory.check(driver.clock.now_s())
    assert driver.loop.scheduler.max_num_seqs == 4
    assert driver.loop.scheduler.feature_cache_share == 1.0
    assert driver.answers([case.prompt for case in cases], greedy(NUM_NEW_TOKENS)) == [list(c.expected) for c in cases]


@pytest.mark.usefixtures("_one_thread")
def test_a_request_is_refused_near_the_limit_and_taken_again_later() -> None:
    memory = FakeMemory(0.97)
    driver = EngineDriver(tiny_model("llama"), memory=memory)
    prompt = tiny_cases("llama")[0].prompt
    with pytest.raises(OverloadedError, match="the test's memory") as refused:
        driver.add(prompt, greedy(4))
    assert refused.value.retry_after_s > 0
    assert driver.loop.stats().refused_memory == 1
    assert driver.loop.runner.num_held == 0
    memory.pressure = 0.5
    driver.clock.advance(1.0)
    driver.add(prompt, greedy(4))
    driver.run()


@pytest.mark.usefixtures("_one_thread")
def test_a_picture_that_would_break_the_limit_is_refused_while_text_is_taken() -> None:
    memory = FakeMemory(0.8, limit_bytes=4 * GIB)
    driver = EngineDriver(tiny_model("llava"), memory=memory)
    keeper = driver.loop.memory
    assert keeper is not None
    keeper._encoder_patch_bytes = GIB
    with_picture = next(case for case in tiny_cases("llava") if case.prompt.images)
    with pytest.raises(OverloadedError, match="images take up to"):
        driver.add(with_picture.prompt, greedy(4))


@pytest.mark.usefixtures("_one_thread")
def test_blocks_of_dropped_prefixes_leave_the_pool_and_one_sequence_still_fits() -> None:
    memory = FakeMemory(0.96)
    driver = EngineDriver(tiny_model("llama"), memory=memory, num_kv_blocks=400, max_model_len=64)
    scheduler = driver.loop.scheduler
    for _ in range(20):
        driver.clock.advance(0.3)
        assert driver.loop.memory is not None
        driver.loop.memory.check(driver.clock.now_s())
    pool = scheduler._ledger.pool
    assert pool.num_withheld > 300
    assert pool.num_available >= scheduler._ledger.blocks_for(scheduler.context_limit)
    memory.pressure = 0.2
    for _ in range(60):
        driver.clock.advance(0.3)
        driver.loop.memory.check(driver.clock.now_s())
    assert pool.num_withheld == 0
    scheduler.check_integrity(idle=True)


# --- pages ----------------------------------------------------------------------------------------------------------


@given(st.sets(st.integers(0, 60)))
def test_runs_cover_exactly_the_blocks(blocks: set[int]) -> None:
    runs = list(runs_of(blocks))
    assert {block for first, end in runs for block in range(first, end)} == blocks
    assert all(end < following for (_, end), (following, _) in pairwise(runs))


def _resident_bytes(cache: KVCache) -> int:
    """What the pool's own pages take: the process's total moves with everything else it holds."""
    total = 0
    for tensor in cache.tensors:
        pages = -(-tensor.numel() * tensor.itemsize // mmap.PAGESIZE)
        resident = (ctypes.c_ubyte * pages)()
        start, length = ctypes.c_void_p(tensor.data_ptr()), ctypes.c_size_t(pages * mmap.PAGESIZE)
        assert ctypes.CDLL(None).mincore(start, length, resident) == 0
        total += sum(page & 1 for page in resident) * mmap.PAGESIZE
    return total


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere pages are not given back")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
def test_released_blocks_cost_no_memory_and_others_keep_their_content(dtype: torch.dtype) -> None:
    spec = tiny_model("llama").spec
    per_block = 16 * spec.kv_bytes_per_token(dtype.itemsize, 4 if dtype == torch.int8 else 0)
    blocks = (16 << 20) // per_block
    cache = allocate_kv_cache(spec, num_blocks=blocks, block_size=16, dtype=dtype, device=torch.device("cpu"))
    assert _resident_bytes(cache) == 0, "an unused pool takes no memory"
    for tensor in cache.tensors:
        assert tensor.data_ptr() % mmap.PAGESIZE == 0
        assert not tensor.any()
        tensor.fill_(1)
    filled = _resident_bytes(cache)
    assert filled >= blocks * per_block
    released = release_pages(cache, list(range(blocks // 2, blocks)))
    assert released > 0.4 * blocks * per_block
    assert filled - _resident_bytes(cache) == released
    for tensor in cache.tensors:
        assert bool((tensor[:, : blocks // 2 * 16] == 1).all())
    assert release_pages(cache, []) == 0


# --- reading --------------------------------------------------------------------------------------------------------


def _machine(root: Path, *, available_kb: int = 800) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: {available_kb} kB\n")
    (root / "proc/self/status").write_text("VmRSS:\t 300 kB\n")
    return root


def test_without_cgroups_the_machine_counts(tmp_path: Path) -> None:
    reading = LinuxMemory(root=_machine(tmp_path)).read()
    assert (reading.used_bytes, reading.limit_bytes) == (200 * 1024, 1000 * 1024)


def test_the_tightest_cgroup_above_the_process_counts_and_file_cache_does_not(tmp_path: Path) -> None:
    root = _machine(tmp_path)
    (root / "proc/self/cgroup").write_text("0::/pod/container\n")
    group = root / "sys/fs/cgroup/pod/container"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("500\n")
    (group.parent / "memory.max").write_text("1000\n")
    (group.parent / "memory.current").write_text("900\n")
    (group.parent / "memory.stat").write_text("anon 600\ninactive_file 100\n")
    reading = LinuxMemory(root=root).read()
    assert (reading.used_bytes, reading.limit_bytes) == (800, 1000)
    assert "cgroup" in reading.source


def test_cgroup_version_1_is_read_too(tmp_path: Path) -> None:
    root = _machine(tmp_path)
    (root / "proc/self/cgroup").write_text("5:cpu:/\n4:memory:/job\n0::/\n")
    group = root / "sys/fs/cgroup/memory/job"
    group.mkdir(parents=True)
    (group / "memory.limit_in_bytes").write_text("2000\n")
    (group / "memory.usage_in_bytes").write_text("1950\n")
    (group / "memory.stat").write_text("total_inactive_file 50\n")
    (group.parent / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    (group.parent / "memory.usage_in_bytes").write_text("5\n")
    assert LinuxMemory(root=root).read() == MemoryReading(1900, 2000, "the cgroup's memory limit")


def test_a_limit_of_its_own_bounds_the_process(tmp_path: Path) -> None:
    reading = LinuxMemory(310 * 1024, root=_machine(tmp_path)).read()
    assert (reading.used_bytes, reading.source) == (300 * 1024, "--memory-limit-mib")


def test_this_machine_can_be_read() -> None:
    reading = LinuxMemory().read()
    assert reading.used_bytes > 0
    assert 0 < reading.pressure < 1.5


# --- at the start ---------------------------------------------------------------------------------------------------


def test_weights_that_cannot_fit_are_refused_before_they_load(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"0" * 5000)
    config = EngineConfig(model=str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"5,000 bytes.*leaves 1,000.*foveal compress"):
        check_weights(config, MemoryReading(9000, 10_000, "the machine's memory"))
    check_weights(config, MemoryReading(1000, 10_000, "the machine's memory"))
    check_weights(EngineConfig(model="org/model"), MemoryReading(10_000, 10_000, "the machine's memory"))


def test_a_pool_that_cannot_fit_says_what_to_lower() -> None:
    with pytest.raises(ConfigurationError, match=r"--num-kv-blocks.*--kv-dtype int8"):
        check_pool(EngineConfig(model="m"), 900, 200, MemoryReading(0, 1000, "a limit"), torch.float32)
    check_pool(EngineConfig(model="m"), 700, 200, MemoryReading(0, 1000, "a limit"), torch.float32)


@pytest.mark.usefixtures("_one_thread")
def test_an_engine_without_room_does_not_start() -> None:
    with pytest.raises(ConfigurationError, match="KV pool"):
        EngineDriver(tiny_model("llama"), memory=FakeMemory(0.5, limit_bytes=1 << 20))
