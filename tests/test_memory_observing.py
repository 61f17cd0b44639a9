"""Training shows a memory what is true; two processes that see different things store the same.

Run as a script, ``python tests/test_memory_observing.py FOLDER``, this file is the two processes: it imports, then forks.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SECONDS = 240
KINDS = ["PrototypeMemory", "RetrievalMemory"]


def memories() -> dict[str, type]:
    from geopix.memory.prototype import PrototypeMemory
    from geopix.memory.retrieval import RetrievalMemory

    return {"PrototypeMemory": PrototypeMemory, "RetrievalMemory": RetrievalMemory}


def model(kind: str, **settings):
    from geopix.model import GeoPixModel
    from tests import tiny

    leaves = tiny.TINY[tiny.TimmEncoder](), tiny.TINY[tiny.MLPConnector], tiny.TINY[tiny.HFLanguageModel]()
    return GeoPixModel(*leaves, tiny.TINY[tiny.DotDecoder], partial(tiny.TINY[memories()[kind]], **settings))


def stored(net) -> dict[str, list]:
    """The buffers of a model's memory, as text can hold them."""
    return {name: value.tolist() for name, value in net.memory.named_buffers()}


# ---------------------------------------------------------------- one process


def seen(kind: str, net) -> int:
    """How many objects the memory has stored."""
    return int(net.memory.prototypes[0].counts.sum() if kind == "PrototypeMemory" else net.memory.banks[0].count)


@pytest.mark.parametrize("kind", KINDS)
def test_training_alone_fills_a_memory_and_gradients_still_flow(kind: str) -> None:
    import torch

    from geopix.data.source import collate
    from tests import toys

    torch.manual_seed(0)
    net, batch = model(kind), collate([toys.sample(0, "segment/single", "segment/multi"), toys.sample(1, "caption/scene")])
    net.eval()(batch)
    assert seen(kind, net) == 0
    net.train()
    for step in (1, 2):
        output = net(batch, torch.zeros(3, dtype=torch.bool))
        (output.drawing.mask_logits.square().sum() + output.drawing.class_logits.square().sum()).backward()
        assert seen(kind, net) == 3 * step, "the truth, whether or not the memory was told"
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in net.memory.parameters())
    net(collate([toys.sample(0, "caption/scene")]))
    net.memory.eval()  # as a curriculum rests it
    net(batch)
    assert seen(kind, net) == 6


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_stored_is_part_of_the_checkpoint(kind: str) -> None:
    import torch

    from geopix.data.source import collate
    from geopix.task import GeoPixTask
    from tests import toys

    torch.manual_seed(0)
    task, batch = GeoPixTask(model(kind)), collate([toys.sample(0, "segment/multi")])
    task.train()
    task.net(batch)
    checkpoint = {"state_dict": task.state_dict()}
    task.on_save_checkpoint(checkpoint)
    other = GeoPixTask(model(kind))
    other.on_load_checkpoint(checkpoint)
    other.load_state_dict(checkpoint["state_dict"])
    assert seen(kind, other.net) == 2
    with torch.no_grad():
        one, two = (each.eval().net(batch).drawing.mask_logits for each in (task, other))
    torch.testing.assert_close(one, two)


# ---------------------------------------------------------------- two processes


def work(folder: Path) -> None:
    """The two processes: each sees its own masks, by hand and then in a model under DDP."""
    import torch
    from torch.nn.parallel import DistributedDataParallel

    from geopix.data.source import collate
    from tests import tiny, toys

    torch.set_num_threads(1)
    child = os.fork()
    rank = int(child == 0)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    found = {}
    for kind, memory_class in memories().items():
        memory = tiny.TINY[memory_class]((4, 4), 6)
        torch.manual_seed(rank)
        # how many masks, of which class, and which levels the decoder asked about, on each rank and step
        steps = [((2, 3), (0, 1), (2, 2)), ((3, 0), (2, 0), (2, 2)), ((0, 0), (0, 0), (2, 2)), ((9, 2), (1, -1), (2, 0)), ((0, 5), (0, 1), (0, 1))]
        for masks, class_id, levels in steps:
            count = masks[rank]
            maps = {level: torch.randn(2, 4, 5, 5) for level in range(levels[rank])}
            memory.observe(maps, torch.arange(count) % 2, torch.rand(count, 10, 10) > 0.5, torch.full((count,), class_id[rank]))
        by_hand = {name: value.tolist() for name, value in memory.named_buffers()}

        torch.manual_seed(0)
        net = model(kind)
        wrapped = DistributedDataParallel(net)
        for sample in (toys.sample(rank, ("segment/multi", "caption/scene")[rank]), toys.sample(rank, "segment/single"), toys.sample(rank, "vqa/presence")):
            output = wrapped(collate([sample]))
            touched = sum(parameter.sum() * 0 for parameter in net.parameters())
            (output.drawing.mask_logits.square().sum() + output.logits.square().mean() + touched).backward()
        found[kind] = {"by hand": by_hand, "in a model": stored(net)}
    (folder / f"{rank}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()
    if child:
        _, status = os.waitpid(child, 0)
        sys.exit(os.waitstatus_to_exitcode(status))


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What each of the two processes stored."""
    folder = tmp_path_factory.mktemp("two")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).resolve()), str(folder)]
    both = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        _, errors = both.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        pytest.fail(f"the two processes did not end within {SECONDS} s")
    finally:
        try:
            os.killpg(both.pid, signal.SIGKILL)  # the fork too
        except ProcessLookupError:
            print("both processes have ended")
        both.communicate()
    assert both.returncode == 0, errors
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("where", ["by hand", "in a model"])
@pytest.mark.parametrize("kind", KINDS)
def test_ranks_that_saw_different_classes_store_the_same(ranks: list[dict], kind: str, where: str) -> None:
    assert ranks[0][kind][where] == ranks[1][kind][where]


def test_they_store_what_both_have_seen(ranks: list[dict]) -> None:
    prototypes, retrieval = ranks[0]["PrototypeMemory"], ranks[0]["RetrievalMemory"]
    assert prototypes["by hand"]["prototypes.0.counts"] == [2, 3 + 9 + 5, 3]
    assert prototypes["by hand"]["prototypes.1.counts"] == [2, 3 + 9, 3]
    # at most four of a rank's masks are stored in a step
    assert retrieval["by hand"]["banks.0.count"] == (2 + 3) + 3 + 4 + 4
    assert retrieval["by hand"]["banks.1.count"] == (2 + 3) + 3 + 4
    assert prototypes["in a model"]["prototypes.0.counts"] == [1 + 2, 1, 0]
    assert retrieval["in a model"]["banks.0.count"] == 2 + 2


if __name__ == "__main__":
    work(Path(sys.argv[1]))
