"""Two processes train one model: parameters stay equal across stages, a rank without masks does not hang, and scores are those of one process.

Run as a script, ``python tests/test_distributed.py FOLDER``, this file is one of the processes; Lightning starts the other.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SECONDS = 120


def stages():
    from geopix.curriculum import Stage

    return [
        Stage("read", 8, train=["connector.*", "llm.*"], loss={"bce": 0.0, "dice": 0.0}, data={"vqa": 1.0, "caption": 1.0}),
        Stage("segment", 8, data={"segment": 1.0}),
    ]


def metrics(folder: Path, images: int = 5, **settings) -> dict[str, float]:
    """Scores of some images, answered in a way that depends on the image."""
    import torch

    from geopix.data.module import GeoPixData
    from geopix.results import Results
    from tests import tiny, toys

    torch.manual_seed(0)
    task = toys.Guessing(tiny.model(memory=False, decoder=tiny.DotDecoder))
    trainer = toys.trainer(folder, Results(folder / f"test-{images}", resamples=50, pictures=0), **settings)
    return dict(trainer.test(task, datamodule=GeoPixData(test=toys.Toys(images), batch_size=2), verbose=False)[0])


def work(folder: Path) -> None:
    """One of the two processes: trains in stages, then with captions alone on rank 1, then tests."""
    from functools import partial

    import torch
    from lightning.pytorch import Callback

    from geopix.curriculum import Curriculum
    from geopix.data.module import GeoPixData
    from geopix.model import GeoPixModel
    from geopix.task import GeoPixTask
    from geopix.types import Drawing
    from tests import tiny, toys

    class Compare(Callback):
        """After each step: which parameters differ between the ranks, and what has moved since the step before."""

        def __init__(self) -> None:
            self.steps: list[dict[str, list[str]]] = []
            self.before: dict[str, torch.Tensor] = {}

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
            now = {name: parameter.detach().clone() for name, parameter in pl_module.net.named_parameters()}
            flat = torch.cat([value.flatten() for value in now.values()])
            every = trainer.strategy.all_gather(flat)
            differ = torch.stack([part.any() for part in (every[0] != every[1]).split([value.numel() for value in now.values()])])
            moved = [name for name, value in now.items() if self.before and not torch.equal(value, self.before[name])]
            self.before = now
            self.steps.append({"differ": [name for name, does in zip(now, differ.tolist(), strict=True) if does], "moved": moved, "tasks": list(batch.tasks)})

    class Shortcut(tiny.DotDecoder):
        """Leaves early where there is nothing to draw: no parameter is used, no earlier mask is given."""

        def forward(self, features, prompts, image_index, recall=None):
            if len(prompts):
                return super().forward(features, prompts, image_index, recall)
            return Drawing(features[0].new_zeros(0, *features[0].shape[-2:]), image_index)

    def leaves():
        return tiny.TINY[tiny.TimmEncoder](), tiny.TINY[tiny.MLPConnector], tiny.TINY[tiny.HFLanguageModel]()

    def train(strategy: str, source: toys.Toys, *callbacks: Callback, decoder: type = tiny.DotDecoder) -> list[dict[str, list[str]]]:
        torch.manual_seed(0)
        task, compare = GeoPixTask(GeoPixModel(*leaves(), partial(decoder, dim=8), tiny.TINY[tiny.ClasswiseMemory])), Compare()
        trainer = toys.trainer(folder, *callbacks, compare, strategy=strategy, devices=2)
        trainer.fit(task, datamodule=GeoPixData(source, samples=8, batch_size=2))
        return compare.steps

    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    staged = train("ddp_find_unused_parameters_true", toys.Toys(), Curriculum(stages()))
    uneven = train("ddp", toys.Toys(kinds=("segment/multi",), odd=("caption/scene",)), decoder=Shortcut)
    scores, few = (metrics(folder, images, strategy="ddp", devices=2) for images in (5, 2))
    rank = torch.distributed.get_rank()
    (folder / f"{rank}.json").write_text(
        json.dumps({"staged": staged, "uneven": uneven, "scores": scores, "few": few, "samples": (folder / "test-5" / "samples.jsonl").read_text()})
    )


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What each of the two processes found."""
    folder = tmp_path_factory.mktemp("two")
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
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def test_parameters_stay_equal_across_a_change_of_stage(ranks: list[dict]) -> None:
    for found in ranks:
        assert [step["differ"] for step in found["staged"]] == [[]] * 4
    parts = [{name.split(".")[0] for name in step["moved"]} for step in ranks[0]["staged"]]
    assert parts[1] == {"connector", "llm"}
    assert parts[3] == {"encoder", "connector", "llm", "decoder", "memory"}


def test_a_rank_with_captions_alone_does_not_hang(ranks: list[dict]) -> None:
    assert {task for step in ranks[0]["uneven"] for task in step["tasks"]} == {"segment/multi"}
    assert {task for step in ranks[1]["uneven"] for task in step["tasks"]} == {"caption/scene"}
    for found in ranks:
        assert [step["differ"] for step in found["uneven"]] == [[]] * 2
    assert {name.split(".")[0] for name in ranks[0]["uneven"][1]["moved"]} >= {"encoder", "decoder", "memory"}


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:The ``compute`` method of metric")
def test_scores_of_two_ranks_are_those_of_one(ranks: list[dict], tmp_path: Path) -> None:
    alone = metrics(tmp_path)
    assert "control/shuffled_giou" in alone, "who is asked about which image must not depend on the number of ranks"
    assert alone["single/count"] == 5
    assert 0 < alone["single/giou"] < 1
    for found in ranks:
        assert found["scores"] == pytest.approx(alone, abs=1e-6)
        assert found["samples"] == (tmp_path / "test-5" / "samples.jsonl").read_text()
    few = metrics(tmp_path, 2)
    assert few["single/count"] == 2
    for found in ranks:
        assert found["few"] == pytest.approx(few, abs=1e-6), "one batch for two ranks: neither may hang, and nothing counts twice"


if __name__ == "__main__":
    work(Path(sys.argv[1]))
