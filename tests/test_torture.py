"""A run that is killed at any moment of training, search or export goes on, and ends as an undisturbed one."""

import time

from torture import torture


def test_five_random_kills(tmp_path):
    seed = time.time_ns()
    wrong, _ = torture(tmp_path, 5, seed)
    assert not wrong, seed
