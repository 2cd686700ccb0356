"""Ghost batch normalization, against its formulas."""

import pytest
import torch
from tiny_training import DIGITS, assert_same_weights, configuration, train

from regioncount.config import as_mapping
from regioncount.errors import InputError
from regioncount.models.networks import check_last_batch
from regioncount.training.depthwise import replace_forwards
from regioncount.training.ghost_batches import ghost_forwards
from regioncount.training.trial import check_layers

SMALL_CNN = {"name": "small_cnn", "width": 4}


@pytest.mark.parametrize("size", [2, 3, 5, 8, 20])
def test_each_ghost_batch_is_normalized_by_its_own_statistics(size):
    images = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    network = torch.nn.Sequential(torch.nn.BatchNorm2d(3, momentum=0.1, dtype=torch.float64))
    with replace_forwards(ghost_forwards(network, size)):
        outputs = network(images)
    mean, variance = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    for first in range(0, 8, size):
        ghosts = images[first : first + size].transpose(0, 1).flatten(1)
        centred = (ghosts - ghosts.mean(1, keepdim=True)) / (ghosts.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
        shape = (3, -1, 4, 4)
        assert torch.allclose(outputs[first : first + size], centred.view(shape).transpose(0, 1))
        # Algorithm 1 of the paper with a momentum of 0.1: the running values decay once for each ghost batch.
        mean, variance = 0.9 * mean + 0.1 * ghosts.mean(1), 0.9 * variance + 0.1 * ghosts.var(1)
    assert torch.allclose(network[0].running_mean, mean)
    assert torch.allclose(network[0].running_var, variance)
    network.eval()
    plain = network(images)
    with replace_forwards(ghost_forwards(network, size)):
        assert torch.allclose(network(images), plain)  # in evaluation mode, only the running statistics count


def test_ghost_batches_of_the_batch_size_change_nothing_and_smaller_ones_do():
    plain, _ = train(configuration(model=SMALL_CNN))
    whole, _ = train(configuration(model=SMALL_CNN, ghost_batch_size=32))
    ghosts, _ = train(configuration(model=SMALL_CNN, ghost_batch_size=8))
    assert_same_weights(plain, whole)
    assert not all(torch.equal(one, other) for one, other in zip(plain.parameters(), ghosts.parameters(), strict=True))


def test_ghost_batches_of_the_batch_size_have_the_identity_of_plain_runs():
    assert as_mapping(configuration(model=SMALL_CNN, ghost_batch_size=32)) == as_mapping(configuration(model=SMALL_CNN))


def test_a_batch_normalization_of_other_things_than_images_is_refused(monkeypatch):
    class Tokens(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.normalization = torch.nn.BatchNorm1d(8)

        def forward(self, images):
            return self.normalization(images.flatten(0, 2)).sum(dim=1)

    monkeypatch.setattr("regioncount.training.trial.build_for", lambda model, dataset: Tokens())
    with pytest.raises(InputError, match="another length than the batch"):
        check_layers(configuration(model=SMALL_CNN, ghost_batch_size=8), DIGITS)


def test_ghost_batches_larger_than_batches_are_refused():
    with pytest.raises(InputError, match="at most batch_size=32"):
        configuration(model=SMALL_CNN, ghost_batch_size=33)


def test_a_network_without_batch_normalization_is_refused():
    check_layers(configuration(model=SMALL_CNN, ghost_batch_size=8), DIGITS)
    with pytest.raises(InputError, match="mlp has no batch normalization"):
        check_layers(configuration(ghost_batch_size=8), DIGITS)


@pytest.mark.parametrize(
    ("batch_size", "ghost", "reason"),
    [
        (32, 8, None),
        (33, None, None),
        (32, 31, "ghost_batch_size=31: a batch of 32 leaves a ghost batch of a single image"),
        (128, 127, "ghost_batch_size=127: a batch of 128 leaves"),
        (43, 6, "batch_size=43: the last of 130 training images"),
        (43, None, "batch_size=43: the last of 130 training images"),
    ],
)
def test_a_ghost_batch_of_a_single_image_is_refused_if_the_network_cannot_be_trained_on_it(batch_size, ghost, reason):
    """130 images: batches of 32 and 128 end with one of 2, batches of 43 with one of 1."""
    network = {"name": "resnet18", "width": 4}  # its last layers have a single pixel
    if reason is None:
        check_last_batch(network, DIGITS, batch_size, ghost)
    else:
        with pytest.raises(InputError, match=f"^{reason}"):
            check_last_batch(network, DIGITS, batch_size, ghost)
