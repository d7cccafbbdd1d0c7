"""Memory of this process, its cgroups and the machine, from /proc and /sys. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

from foveal.engine.memory.memory_reading import MemoryReading

__all__ = ["LinuxMemory"]

_UNLIMITED = 1 << 60
"""cgroup v1 writes a number near 2**63 where there is no limit."""


class LinuxMemory:
    """Implements MemoryReader. Where /proc does not exist (macOS), psutil answers for the machine."""

    def __init__(self, process_limit_bytes: int | None = None, root: Path = Path("/")) -> None:
        """`process_limit_bytes` bounds this process alone; `root` is where proc and sys are, for tests."""
        self._process_limit_bytes = process_limit_bytes
        self._root = root
        self._cgroups = list(self._find_cgroups())

    def read(self) -> MemoryReading:
        return max(self._readings(), key=lambda reading: reading.pressure)

    def _readings(self) -> Iterator[MemoryReading]:
        yield self._machine()
        for directory, names in self._cgroups:
            reading = self._cgroup(directory, *names)
            if reading is not None:
                yield reading
        if self._process_limit_bytes is not None:
            yield MemoryReading(self._resident(), self._process_limit_bytes, "--memory-limit-mib")

    def _machine(self) -> MemoryReading:
        fields = self._fields(self._root / "proc/meminfo")
        total, available = fields.get("MemTotal:"), fields.get("MemAvailable:")
        if total is None or available is None:
            memory = psutil.virtual_memory()
            return MemoryReading(memory.total - memory.available, memory.total, "the machine's memory")
        return MemoryReading(1024 * (total - available), 1024 * total, "the machine's memory")

    def _resident(self) -> int:
        fields = self._fields(self._root / "proc/self/status")
        resident = fields.get("VmRSS:")
        return psutil.Process().memory_info().rss if resident is None else 1024 * resident

    def _find_cgroups(self) -> Iterator[tuple[Path, tuple[str, str, str]]]:
        """Directories of this process's memory cgroups, up to the root: each level may have a limit.

        Version 2 has one hierarchy, version 1 one for memory. Inside a container the path that /proc names may be the
        host's, while the mount shows the container's own group as its root; both are looked at.
        """
        try:
            lines = (self._root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
        except OSError:
            return
        for line in lines:
            number, controllers, path = [*line.split(":", 2), "", ""][:3]
            if number == "0" and not controllers:
                mounts = [self._root / "sys/fs/cgroup", self._root / "sys/fs/cgroup/unified"]
                names = ("memory.max", "memory.current", "inactive_file")
            elif "memory" in controllers.split(","):
                mounts = [self._root / "sys/fs/cgroup/memory"]
                names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            else:
                continue
            for mount in mounts:
                directory = mount / path.strip("/")
                for level in (directory, *directory.parents):
                    if level == mount.parent:
                        break
                    if (level / names[0]).is_file():
                        yield level, names

    def _cgroup(self, directory: Path, limit_name: str, used_name: str, cache_name: str) -> MemoryReading | None:
        """None without a limit. File cache that can be dropped does not count as used."""
        try:
            limit = (directory / limit_name).read_text(encoding="utf-8").strip()
            used = int((directory / used_name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if not limit.isdigit() or not 0 < int(limit) < _UNLIMITED:
            return None
        cache = self._fields(directory / "memory.stat").get(cache_name, 0)
        return MemoryReading(max(0, used - cache), int(limit), "the cgroup's memory limit")

    @staticmethod
    def _fields(path: Path) -> dict[str, int]:
        """Lines of a name and a number; others are left out. Empty if there is no such file."""
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except OSError:
            return {}
        parts = (line.split() for line in lines)
        return {part[0]: int(part[1]) for part in parts if len(part) > 1 and part[1].isdigit()}
