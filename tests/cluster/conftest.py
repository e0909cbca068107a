"""One Ray of two CPUs for the tests of a process; it listens on the loopback only."""

import os
from collections.abc import Iterator
from typing import Any

import pytest

# Before anything imports Ray. Tests do not join what runs on the machine, and take little memory.
os.environ["RAY_ADDRESS"] = "local"
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
os.environ["RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES"] = str(120 * 2**20)


@pytest.fixture(scope="session")
def ray() -> Iterator[Any]:
    pytest.importorskip("ray", reason="needs the extra cluster")
    from shortcut_lightning.cluster.ray_pool import connected

    with connected(2) as ray:
        yield ray
