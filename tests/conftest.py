"""What all tests share: one thread, and the folder with real data beside the repository, where there is one."""

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by processes that tests start; the tensors of tests are too small for more

import pytest
import torch

collect_ignore = ["examples"]  # run by test_docs.py, not on import
SHARED = Path(__file__).parents[2] / "shared"


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder ``shared`` beside the repository, with real crops and golden files."""
    if not SHARED.is_dir():
        pytest.skip(f"no folder {SHARED.name!r} with real data beside the repository")
    return SHARED
