"""Train a model and measure it.

    python train.py dataset=cifar10 model=resnet18 optimizer.learning_rate=0.1

`python train.py --help` lists the options. With -m it runs a grid, as sweep.py does.
"""

import sys

from regioncount.commands import train

if __name__ == "__main__":
    sys.exit(train())
