"""A run that is resumed in the middle of an epoch sees what the uninterrupted one saw, pixel by pixel; two ranks share no sample and lose none.

Run as a script, ``python tests/test_data_resume.py FOLDER``, this file is one of two processes; Lightning starts the other.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from geopix.curriculum import Curriculum, Stage
from geopix.data.appearance import Appearance
from geopix.data.mixture import Mixture
from geopix.data.module import GeoPixData
from geopix.data.source import Source
from geopix.decoders.dot import DotDecoder
from geopix.task import GeoPixTask
from geopix.types import Batch

ROOT = Path(__file__).parents[1]
SECONDS = 120
STEPS, STOP = 6, 4
"""Steps of the first epoch, and after how many of them the run stops."""
ALL = ("segment/single", "vqa/presence", "caption/scene")

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:You're resuming from a checkpoint that ended")


class Watch(Callback):
    """What each step is given; saves the run where it is to stop."""

    def __init__(self, saved: Path) -> None:
        self.saved, self.seen = saved, []

    def on_train_batch_start(self, trainer, pl_module, batch: Batch, batch_idx: int) -> None:
        self.seen.append((batch_idx, batch.keys, batch.dialogues, batch.images.clone(), batch.masks.clone()))

    def on_train_batch_end(self, trainer, pl_module, outputs, batch: Batch, batch_idx: int) -> None:
        if len(self.seen) == STOP and not self.saved.exists():
            trainer.save_checkpoint(self.saved)


def mixture() -> Mixture:
    from tests import toys

    return Mixture({"many": toys.Toys(50, ALL), "few": toys.Toys(5, ALL)}, {"many": 2.0, "few": 1.0}, seed=3)


def seen(folder: Path, source: Source, appearance: Appearance | None, *, resumed: bool = False, **settings: Any) -> list[tuple]:
    """The steps of a run in two stages, from its beginning or from where it stopped."""
    from tests import tiny, toys

    torch.manual_seed(0)
    stages = [Stage("first", 10, data={"segment": 2.0, "vqa": 1.0}), Stage("second", 14, data={"segment": 1.0, "caption": 1.0})]
    watch = Watch(folder / "stopped.ckpt")
    trainer = toys.trainer(folder, Curriculum(stages), watch, **settings)
    batch = 4 // trainer.world_size
    data = GeoPixData(source, batch_size=batch, appearance=appearance)
    trainer.fit(GeoPixTask(tiny.model(decoder=DotDecoder)), datamodule=data, ckpt_path=watch.saved if resumed else None)
    return watch.seen


def same(one: tuple, other: tuple) -> bool:
    return one[:3] == other[:3] and all(torch.equal(*pair) for pair in zip(one[3:], other[3:], strict=True))


@pytest.mark.parametrize("changed", ["appearance", "mixture", "both"])
def test_the_rest_of_an_epoch_is_what_it_would_have_been(changed: str, tmp_path: Path) -> None:
    from tests import toys

    appearance = None if changed == "mixture" else Appearance(blur=0.5)
    sources = [toys.Toys(9, ALL) if changed == "appearance" else mixture() for _ in range(2)]
    whole = seen(tmp_path, sources[0], appearance)
    rest = seen(tmp_path, sources[1], appearance, resumed=True)
    assert [step[0] for step in whole] == list(range(STEPS))
    assert [step[0] for step in rest] == list(range(STOP, STEPS))
    assert all(same(one, other) for one, other in zip(rest, whole[STOP:], strict=True))
    assert not same(rest[0], whole[0])


def work(folder: Path) -> None:
    """One of two processes: a run, and the same from its middle on."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    settings = {"strategy": "ddp_find_unused_parameters_true", "devices": 2}
    found = {"whole": seen(folder, mixture(), None, **settings), "rest": seen(folder, mixture(), None, resumed=True, **settings)}
    torch.save(found, folder / f"{torch.distributed.get_rank()}.pt")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, list[tuple]]]:
    folder = tmp_path_factory.mktemp("ranks")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
    command = [sys.executable, str(Path(__file__).resolve()), str(folder)]
    parent = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        _, errors = parent.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        pytest.fail(f"the two processes did not end within {SECONDS} s")
    finally:
        try:
            os.killpg(parent.pid, signal.SIGKILL)  # the other process too; a hanging collective does not heed SIGTERM
        except ProcessLookupError:
            print("both processes have ended")
        parent.communicate()
    assert parent.returncode == 0, errors
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


def test_ranks_share_no_sample_of_a_mixture_and_together_see_what_one_process_sees(ranks: list[dict[str, list[tuple]]], tmp_path: Path) -> None:
    alone = seen(tmp_path, mixture(), None)
    for step, (one, other, both) in enumerate(zip(ranks[0]["whole"], ranks[1]["whole"], alone, strict=True)):
        assert sorted(one[1] + other[1]) == sorted(both[1]), f"step {step}"
    later = [{pair for step in rank["whole"][3:] for pair in zip(step[1], step[2], strict=True) if pair[0].startswith("many/")} for rank in ranks]
    assert not later[0] & later[1], "of 50 images none is asked the same twice in a stage"
    assert min(map(len, later)) > 0
    assert sum(map(len, later)) > 5


def test_each_rank_goes_on_where_it_was(ranks: list[dict[str, list[tuple]]]) -> None:
    for rank in ranks:
        assert [step[0] for step in rank["rest"]] == list(range(STOP, STEPS))
        assert all(same(one, other) for one, other in zip(rank["rest"], rank["whole"][STOP:], strict=True))


if __name__ == "__main__":
    work(Path(sys.argv[1]))
