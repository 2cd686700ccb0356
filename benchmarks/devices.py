"""Compare counts on a GPU and on the CPU.

    python benchmarks/devices.py [--networks resnet18 mobilenet] [--lines 100] [--data DIR]

Both count on the same lines through the same trained networks, with method=grid and method=auto.
"""

import time

import torch
import zoo

from regioncount.regions import count_regions, sample_simplices
from regioncount.training import choose_device


def main() -> None:
    parser = zoo.make_parser(__doc__)
    parser.add_argument("--networks", nargs="+", default=("resnet18", "mobilenet"))
    parser.add_argument("--lines", type=int, default=100)
    options = parser.parse_args()
    devices = (torch.device("cpu"), choose_device(options.device))
    print("| network | width | train accuracy % | method | CPU, s | GPU, s | mean, CPU | mean, GPU | equal counts |")
    print("|---|---|---|---|---|---|---|---|---|")
    for network in options.networks:
        width = zoo.WIDTHS[network]
        *_, (_, model, dataset, accuracy) = zoo.stages(network, width, options)
        images = dataset.normalize(dataset.train.images)
        vertices = sample_simplices(images, 1, options.lines, torch.Generator().manual_seed(0))
        for method in ("grid", "auto"):
            counts, seconds = [], []
            for device in devices:
                model.to(device)
                count_regions(model, vertices, method=method)  # warm up: the first call builds kernels for each shape
                start = time.perf_counter()
                counts.append(count_regions(model, vertices, method=method).counts)  # on the CPU, so this synchronizes
                seconds.append(time.perf_counter() - start)
            equal = (counts[0] == counts[1]).sum()
            print(
                f"| {network} | {width} | {100 * accuracy:.1f} | {method} | {seconds[0]:.2f} | {seconds[1]:.2f} "
                f"| {counts[0].mean():.3f} | {counts[1].mean():.3f} | {equal} of {options.lines} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
