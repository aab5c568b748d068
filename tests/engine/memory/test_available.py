from __future__ import annotations

import resource
from pathlib import Path

import pytest

from intaglio.engine.memory.available import AvailableMemory, available_memory

MIB = 1 << 20
UNLIMITED_V1 = 9223372036854771712  # what the kernel writes where there is no limit
Files = dict[str, str]

MACHINE: Files = {"proc/meminfo": f"MemTotal: {8 << 20} kB\nMemAvailable:  {4 << 20} kB\nHugePages_Total: 0\n"}
V2: Files = {
    "proc/self/cgroup": "0::/kubepods/pod7\n",
    "sys/fs/cgroup/kubepods/memory.max": "max\n",
    "sys/fs/cgroup/kubepods/memory.current": f"{900 * MIB}\n",
    "sys/fs/cgroup/kubepods/pod7/memory.max": f"{1000 * MIB}\n",
    "sys/fs/cgroup/kubepods/pod7/memory.current": f"{800 * MIB}\n",
    "sys/fs/cgroup/kubepods/pod7/memory.stat": f"anon 5\nactive_file {100 * MIB}\ninactive_file {50 * MIB}\n",
}
V1: Files = {
    "proc/self/cgroup": "5:cpu,cpuacct:/elsewhere\n4:memory:/docker/a1\n0::/\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{600 * MIB}\n",
    "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{100 * MIB}\n",
    "sys/fs/cgroup/memory/memory.stat": f"active_file 1\ntotal_active_file {3 * MIB}\ntotal_inactive_file {4 * MIB}\n",
}
GROUP = "memory limit of the control group"


def no_limit(_: int) -> tuple[int, int]:
    return resource.RLIM_INFINITY, resource.RLIM_INFINITY


def available(root: Path, *files: Files) -> AvailableMemory:
    for name, text in {name: text for group in files for name, text in group.items()}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return available_memory(root, no_limit)


def test_a_machine_without_limits_offers_what_the_kernel_calls_available(tmp_path: Path) -> None:
    assert available(tmp_path, MACHINE) == AvailableMemory(4 << 30, "memory of this machine that is free")


def test_a_control_group_offers_its_limit_less_its_usage_with_cached_files_counted_free(tmp_path: Path) -> None:
    assert available(tmp_path, MACHINE, V2) == AvailableMemory(350 * MIB, GROUP)


def test_a_group_above_may_be_the_tighter_one(tmp_path: Path) -> None:
    above = {"sys/fs/cgroup/kubepods/memory.max": f"{1000 * MIB}\n"}  # 900 of them are in use
    assert available(tmp_path, MACHINE, V2, above) == AvailableMemory(100 * MIB, GROUP)


def test_in_version_1_the_root_counts_where_the_path_is_the_hosts(tmp_path: Path) -> None:
    assert available(tmp_path, MACHINE, V1) == AvailableMemory(507 * MIB, GROUP)


def test_the_largest_number_in_version_1_means_no_limit(tmp_path: Path) -> None:
    unlimited = {"sys/fs/cgroup/memory/memory.limit_in_bytes": f"{UNLIMITED_V1}\n"}
    assert available(tmp_path, MACHINE, V1, unlimited).size_bytes == 4 << 30


def test_a_group_over_its_limit_has_nothing_left(tmp_path: Path) -> None:
    over = {"sys/fs/cgroup/kubepods/pod7/memory.current": f"{2000 * MIB}\n"}
    assert available(tmp_path, MACHINE, V2, over).size_bytes == 0


@pytest.mark.parametrize(("name", "left", "mapped"), [("RLIMIT_AS", 700, True), ("RLIMIT_DATA", 960, False)])
def test_a_limit_of_the_process_counts_less_what_it_uses(tmp_path: Path, name: str, left: int, mapped: bool) -> None:
    status = {"proc/self/status": f"Name:\tpython\nVmSize:\t {300 << 10} kB\nVmData:\t {40 << 10} kB\n"}
    available(tmp_path, MACHINE, status)

    def limit_of(kind: int) -> tuple[int, int]:
        return (1000 * MIB, 2000 * MIB) if kind == getattr(resource, name) else no_limit(kind)

    found = available_memory(tmp_path, limit_of)
    assert found == AvailableMemory(left * MIB, f"{name} of the process", mapped)


def test_without_readable_limits_there_is_no_bound(tmp_path: Path) -> None:
    assert available_memory(tmp_path, no_limit, lambda: 0).size_bytes > 1 << 60


def test_outside_linux_half_of_the_memory_counts_as_free(tmp_path: Path) -> None:
    found = available_memory(tmp_path, no_limit, lambda: 16 << 30)
    assert found.size_bytes == 8 << 30
    assert "half of this machine's memory" in found.bound


def test_this_machine_has_a_plausible_amount_of_memory() -> None:
    assert 1 << 20 < available_memory().size_bytes < 1 << 50
