"""What all tests share: one thread, the folder with real data beside the repository, where there is one, and the comparison with originals."""

import math
import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by processes that tests start; the tensors of tests are too small for more

import pytest
import torch

collect_ignore = ["examples"]  # run by test_docs.py, not on import
SHARED = Path(__file__).parents[2] / "shared"
PARITY: dict[tuple[str, str, str], tuple[float, float, float]] = {}
ABOUT = """# Parity

Every part that stands for somebody else's model is compared with it on the same weights, tiny and random, as the tests do at every run; the released
layout of GeoPix with the tensors that its own code gave. "Largest difference" is the upper end of its power of ten: it moves a little between machines.
"Allowed" is an absolute difference, and beside it a share of the original's own value.

```bash
python -m pytest --parity docs/parity.md
```

| part | original | compared | largest difference | allowed |
|---|---|---|---:|---:|
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--parity", metavar="FILE", help="run the comparisons with originals alone, and write what they found")


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--parity"):
        items[:] = [item for item in items if isinstance(item, pytest.Function) and "parity" in item.fixturenames]


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    path = session.config.getoption("--parity")
    if path and exitstatus == 0:
        rows = [f"| {' | '.join(names)} | {_bound(found)} | {atol:.0e} + {rtol:.0e} |" for names, (found, atol, rtol) in sorted(PARITY.items())]
        Path(path).write_text(ABOUT + "\n".join(rows) + "\n", encoding="utf-8")


def _bound(difference: float) -> str:
    return "0" if difference == 0 else f"1e{math.ceil(math.log10(difference)):+03d}"


@pytest.fixture
def parity() -> Callable[..., None]:
    """``parity(part, original, compared, ours, theirs)``: must be close, and is noted for docs/parity.md."""

    def compare(part: str, original: str, compared: str, ours: torch.Tensor, theirs: torch.Tensor, *, atol: float = 1e-5, rtol: float = 1e-5) -> None:
        torch.testing.assert_close(ours, theirs, atol=atol, rtol=rtol)
        key, found = (part, original, compared), (ours - theirs).abs().max().item() if ours.numel() else 0.0
        PARITY[key] = max(PARITY.get(key, (0.0, 0.0, 0.0))[0], found), atol, rtol
        assert ours.numel(), f"nothing was compared of {part}"

    return compare


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder ``shared`` beside the repository, with real crops and golden files."""
    if not SHARED.is_dir():
        pytest.skip(f"no folder {SHARED.name!r} with real data beside the repository")
    return SHARED
