"""Read the `.wandb` files that W&B writes for offline runs."""

import json
import os
import struct
from pathlib import Path


def records(path: Path):
    """Yield the records of a .wandb file: LevelDB's log format (blocks of 32 KiB with chunks) after a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, message = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while position < len(data):
        left_in_block = 32768 - position % 32768
        if left_in_block < 7:
            position += left_in_block
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        message += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a complete message, or its last chunk
            yield Record.FromString(message)
            message = b""


def nested(items) -> dict:
    """Return key paths and JSON values as a nested dictionary."""
    result = {}
    for item in items:
        *parents, last = item.nested_key or [item.key]
        level = result
        for parent in parents:
            level = level.setdefault(parent, {})
        level[last] = json.loads(item.value_json)
    return result


def read_run(path: Path) -> dict:
    run = {"config": {}, "history": [], "summary": {}, "exit_code": None}
    for record in records(path):
        match record.WhichOneof("record_type"):
            case "run":
                run |= {"id": record.run.run_id, "name": record.run.display_name, "group": record.run.run_group}
                run |= {"project": record.run.project, "job_type": record.run.job_type}
                run |= {"tags": list(record.run.tags), "notes": record.run.notes}
                run["config"] |= nested(record.run.config.update)
            case "config":
                run["config"] |= nested(record.config.update)
            case "history":
                run["history"].append(nested(record.history.item))
            case "summary":
                run["summary"] |= nested(record.summary.update)
            case "exit":
                run["exit_code"] = record.exit.exit_code
    return run


def read_runs(directory: Path) -> list[dict]:
    return [read_run(path) for path in sorted(directory.glob("wandb/offline-run-*/*.wandb"), key=os.path.getctime)]


def history(run: dict, *columns: str) -> list[tuple]:
    """Return the values of the rows that have all the columns."""
    return [tuple(row[column] for column in columns) for row in run["history"] if set(columns) <= set(row)]
