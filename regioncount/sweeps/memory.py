"""The memory that is left on this machine, for the number of runs that are started side by side."""

from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def available_memory() -> int | None:
    """Return the bytes of memory that this process and its children can still use; None if the system does not tell.

    On Linux, this is the smaller one of the machine's available memory and what the limit of the control group (a
    container's or a cluster job's) leaves.
    """
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        machine = 1024 * int(lines["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        return None
    return min([machine, *_left_in_groups()])


def _left_in_groups() -> list[int]:
    """Return the bytes left below the limits of this process's control group and of those around it (version 2)."""
    try:
        entry = next(line for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return []
    group = CGROUP / entry.removeprefix("0::").lstrip("/")
    left = []
    for folder in (group, *group.parents):
        if not folder.is_relative_to(CGROUP):
            break
        try:
            limit, used = ((folder / name).read_text().strip() for name in ("memory.max", "memory.current"))
            statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            if limit != "max":
                # The kernel frees the pages of files that were read, but counts them as used.
                left.append(int(limit) - int(used) + int(statistics["inactive_file"]))
        except (OSError, ValueError, KeyError):
            continue
    return left
