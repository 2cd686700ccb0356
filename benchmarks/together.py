"""Measure the images per second of several simultaneous runs on one GPU, in total.

    python benchmarks/together.py [--runs 1 2 4] [--widths 64 16] [--images 10240]

Each run trains a ResNet-18 on random images, with batches of 256, in a separate process like joblib's workers. All runs
start their timed epochs at the same time.
"""

import argparse
import time
from itertools import product

import torch
from torch import multiprocessing

from regioncount import data, training
from regioncount.config import parse_run
from regioncount.data.splits import Split
from regioncount.models.networks import build_for


def train(width: int, images: int, device: torch.device, barrier, queue) -> None:
    """Train for three epochs. Put the times at which the second one starts and the last one ends into the queue."""
    pixels = torch.randint(256, (images, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    split = Split(pixels, torch.arange(images) % 10)
    dataset = data.Dataset("random", split, split, tuple("0123456789"), (0.5,) * 3, (0.25,) * 3)
    config = parse_run(
        {
            "model": {"name": "resnet18", "width": width},
            "optimizer": {"name": "sgd", "learning_rate": 0.01, "momentum": 0.9, "nesterov": False, "weight_decay": 0.0},
            "schedule": {"name": "constant"},
            "batch_size": 256,
            "epochs": 3,
        }
    )
    model = build_for(config.model, dataset)
    precision = training.choose_precision("auto", device)
    times = []

    def on_epoch(row: dict, _) -> None:
        if row["epoch"] == 1:
            barrier.wait()
        times.append(time.time())

    training.fit(model, dataset.to(device), config, device=device, precision=precision, on_epoch=on_epoch)
    queue.put((times[0], times[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", nargs="+", type=int, default=(1, 2, 4))
    parser.add_argument("--widths", nargs="+", type=int, default=(64, 16))
    parser.add_argument("--images", type=int, default=10240)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    device = training.choose_device(options.device)
    context = multiprocessing.get_context("spawn")
    print("| ResNet-18 of width | runs at a time | images/s, all together |\n|---|---|---|")
    for width, runs in product(options.widths, options.runs):
        barrier, queue = context.Barrier(runs), context.Queue()
        workers = [context.Process(target=train, args=(width, options.images, device, barrier, queue)) for _ in range(runs)]
        for worker in workers:
            worker.start()
        spans = [queue.get() for _ in workers]
        for worker in workers:
            worker.join()
        seconds = max(stop for _, stop in spans) - min(start for start, _ in spans)
        print(f"| {width} | {runs} | {2 * options.images * runs / seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
