import torch
from torch.nn.functional import relu

from todm.recipes.standout_mnist.pretrain import Pretraining, pretrained

SIZES = [64, 32, 16]


def pictures():
    """Stripes: 64 pixels that follow 4 numbers, so that noise in them can be undone."""
    generator = torch.Generator().manual_seed(0)
    levels = torch.randint(0, 256, (2000, 4), generator=generator)
    return levels.repeat_interleave(16, dim=1).to(torch.uint8)


def restorable(layer, x):
    """How much of the variance of `x` a linear read-out of the layer's activity under noise gives back."""
    noisy = x * (torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) >= 0.25)
    activity = torch.cat([relu(layer(noisy)), torch.ones(len(x), 1)], 1).detach()
    restored = activity @ torch.linalg.lstsq(activity, x).solution
    return 1 - ((restored - x).var() / x.var()).item()


def test_a_pretrained_layer_undoes_noise_better_than_a_fresh_one(tmp_path):
    data, x = pictures(), pictures().float() / 255
    fresh = pretrained(SIZES, data, Pretraining(epochs=0), 0, tmp_path)
    learnt = pretrained(SIZES, data, Pretraining(epochs=20, batch=100, lr=5e-3), 0, tmp_path)
    assert restorable(learnt[0], x) > restorable(fresh[0], x) + 0.03
    below = relu(learnt[0](x)).detach()
    assert restorable(learnt[1], below) > restorable(fresh[1], below) + 0.03


def test_it_is_done_once_for_the_same_arguments_and_does_not_touch_the_random_state(tmp_path):
    data, config = pictures(), Pretraining(epochs=1)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first = pretrained(SIZES, data, config, 0, tmp_path)
    assert torch.equal(torch.rand(2), expected)
    (path,) = tmp_path.iterdir()
    stamp = path.stat().st_mtime_ns
    again = pretrained(SIZES, data, config, 0, tmp_path)
    assert all(torch.equal(a.weight, b.weight) for a, b in zip(first, again, strict=True))
    assert path.stat().st_mtime_ns == stamp
    pretrained(SIZES, data, config, 1, tmp_path)
    pretrained(SIZES, data[:1000], config, 0, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
