"""Run all GPU benchmarks in under eight minutes.

    python benchmarks/gpu.py [--data DIR]

Prints the GPU tables of benchmarks/README.md for this machine: counting and training, each compared with the plain version.
The figures depend on the machine and the date; state both when you publish them. The benchmark that compiles is run last.
"""

import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import torch
import zoo

HERE = Path(__file__).parent
LIMIT = 470  # seconds

STEPS = (
    ("counting.py", "--lines", "100", "--triangles", "100", "--squares", "4"),
    ("devices.py",),
    ("training.py", "--images", "12800"),
    ("together.py",),
    ("training.py", "--images", "12800", "--compile", "--networks", "resnet18"),
)


def main() -> None:
    options = zoo.make_parser(__doc__).parse_args()
    if not torch.cuda.is_available():
        sys.exit("gpu.py: torch finds no usable GPU; the other benchmarks run on a CPU")
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {date.today()}\n", flush=True)
    started = time.monotonic()
    for name, *arguments in STEPS:
        remaining = LIMIT - (time.monotonic() - started)
        print(f"\n`python benchmarks/{name} {' '.join(arguments)}`\n", flush=True)
        data = () if name == "together.py" else ("--data", options.data, "--results", options.results)
        command = [sys.executable, HERE / name, *arguments, *data]
        try:
            subprocess.run(command, timeout=max(1, remaining), check=False)
        except subprocess.TimeoutExpired:
            print("stopped at the time limit of eight minutes", flush=True)


if __name__ == "__main__":
    main()
