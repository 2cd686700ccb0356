"""Compare models trained by regioncount and by the plain version: test accuracy and region count over several seeds.

    python benchmarks/equivalence.py [--seeds 5] [--data DIR]

The network is a ResNet-18 of width 16, trained on 5,000 images by regioncount (in bfloat16 on hardware that supports it) and
by the plain version in float32. Each run has its own seed and initial weights. All models are counted with method=grid on
the same 100 lines. The results of each run are stored under --results and reused.
"""

import json
from pathlib import Path

import numpy as np
import plain
import torch
import zoo
from scipy.stats import ttest_ind

from regioncount.models.networks import build_for
from regioncount.regions import count_regions, sample_simplices
from regioncount.runs import runner
from regioncount.training import choose_device

WIDTH = 16


def suite_model(seed: int, options) -> torch.nn.Module:
    """Return a model trained by regioncount."""
    prepared = zoo.prepare("resnet18", WIDTH, options, seed=seed)
    model = build_for(prepared.config.model, prepared.dataset)
    model.load_state_dict(runner.run_or_resume(prepared).weights())
    return model


def plain_model(seed: int, dataset, options, device) -> torch.nn.Module:
    """Return a model trained by the plain version, with the same options."""
    torch.manual_seed(seed)
    config = zoo.prepare("resnet18", WIDTH, options).config
    model = build_for(config.model, dataset).to(device)
    settings = config.optimizer
    optimizer = torch.optim.SGD(
        model.parameters(), settings["learning_rate"], momentum=settings["momentum"], weight_decay=settings["weight_decay"]
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.epochs)
    images = dataset.train.images.permute(0, 2, 3, 1).contiguous().numpy()
    batches = plain.loader(images, dataset.train.labels.tolist(), dataset.mean, dataset.std, config.batch_size)
    for _ in range(config.epochs):
        plain.train_epoch(model, batches, optimizer, device)
        schedule.step()
    return model


def main() -> None:
    parser = zoo.make_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    device = choose_device(options.device)
    torch.backends.cudnn.allow_tf32 = False
    dataset = zoo.dataset(options)
    generator = torch.Generator().manual_seed(0)
    vertices = sample_simplices(dataset.normalize(dataset.train.images), 1, 100, generator).to(device)
    test = dataset.test.images.permute(0, 2, 3, 1).contiguous().numpy()
    batches = plain.loader(test, dataset.test.labels.tolist(), dataset.mean, dataset.std, 256, shuffle=False)
    directory = Path(options.results) / "equivalence"
    directory.mkdir(parents=True, exist_ok=True)
    results = {"plain": [], "regioncount": []}
    print("| training | seed | test accuracy % | region count |\n|---|---|---|---|")
    for seed in range(options.seeds):
        for version in results:
            file = directory / f"{version}-{seed}-{options.epochs}-{device.type}.json"
            if not file.exists():
                model = plain_model(seed, dataset, options, device) if version == "plain" else suite_model(seed, options)
                model = model.to(device)
                count = count_regions(model, vertices, method="grid").mean
                file.write_text(json.dumps([plain.accuracy(model, batches, device), count]))
            accuracy, count = json.loads(file.read_text())
            results[version].append((accuracy, count))
            print(f"| {version} | {seed} | {100 * accuracy:.2f} | {count:.3f} |", flush=True)
    print("\n| | plain | regioncount | difference | p (Welch) |\n|---|---|---|---|---|")
    for column, name, scale in ((0, "test accuracy %", 100), (1, "region count", 1)):
        versions = [scale * np.array(values)[:, column] for values in results.values()]
        cells = [f"{values.mean():.2f} ± {values.std(ddof=1):.2f}" for values in versions]
        p = ttest_ind(*versions, equal_var=False).pvalue
        difference = versions[1].mean() - versions[0].mean()
        print(f"| {name} (mean ± standard deviation) | {cells[0]} | {cells[1]} | {difference:+.2f} | {p:.2f} |")


if __name__ == "__main__":
    main()
