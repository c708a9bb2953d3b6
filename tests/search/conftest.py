import pytest
from small_net import Net

from todm.space import SearchSpace


@pytest.fixture
def net() -> Net:
    return Net()


@pytest.fixture
def space(net: Net) -> SearchSpace:
    return SearchSpace.of(net)
