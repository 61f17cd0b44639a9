"""Stages: what learns, at which rate, on which tasks, and that nothing else moves."""

import math
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback

from geopix.curriculum import Curriculum, Stage
from geopix.data.module import GeoPixData
from geopix.decoders.dot import DotDecoder
from geopix.task import GeoPixTask
from tests import tiny, toys

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:Found .* module.* in eval mode")

READ = Stage("read", 6, train=["connector.*", "llm.*"], loss={"bce": 0.0, "dice": 0.0}, warmup=0.5, data={"vqa": 1.0, "caption": 1.0})
SEGMENT = Stage("segment", 8, learning_rate=0.5, decay_to=0.1, data={"segment": 1.0})


class Watch(Callback):
    """What each step trained with."""

    def __init__(self) -> None:
        self.steps: list[dict] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        net = pl_module.net
        self.steps.append(
            {
                "rate": trainer.optimizers[0].param_groups[0]["lr"],
                "learns": {name.split(".")[0] for name, parameter in net.named_parameters() if parameter.requires_grad},
                "with_grad": {name.split(".")[0] for name, parameter in net.named_parameters() if parameter.grad is not None},
                "loss": pl_module.active_loss,
                "tasks": {task.split("/")[0] for task in batch.tasks},
                "state": {name: value.clone() for name, value in net.encoder.state_dict().items()},
                "training": net.encoder.training,
            }
        )


def fit(folder: Path, stages: list[Stage], task: GeoPixTask, batch_size: int = 4) -> tuple[Watch, toys.Toys]:
    watch, source = Watch(), toys.Toys()
    trainer = toys.trainer(folder, Curriculum(stages), watch)
    trainer.fit(task, datamodule=GeoPixData(source, batch_size=batch_size))
    assert trainer.global_step == len(watch.steps)
    return watch, source


def new_task() -> GeoPixTask:
    torch.manual_seed(0)
    return GeoPixTask(tiny.model(decoder=DotDecoder), optimizer=lambda groups: torch.optim.AdamW(groups, lr=1e-3))


def test_stages_lead_a_training(tmp_path: Path) -> None:
    task = new_task()
    before = {name: value.clone() for name, value in task.net.encoder.state_dict().items()}
    watch, source = fit(tmp_path, [READ, SEGMENT], task)
    first, second, third = watch.steps
    assert [step["loss"].bce for step in watch.steps] == [0.0, 0.0, 2.0]
    assert first["learns"] == second["learns"] == first["with_grad"] == {"connector", "llm"}
    assert third["learns"] == third["with_grad"] == {"encoder", "connector", "llm", "decoder", "memory"}
    # 14 samples are 3 whole steps; the mix changes at sample 6, inside the second step.
    assert source.asked == [(index, READ.data if index < 6 else SEGMENT.data) for index in range(12)]
    assert [step["tasks"] for step in watch.steps] == [{"vqa", "caption"}, {"vqa", "caption", "segment"}, {"segment"}]
    # The second stage has gone 2 of its 8 samples when the third step begins.
    falling = 0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2
    assert [step["rate"] for step in watch.steps] == pytest.approx([0.0, 1e-3, 0.5e-3 * falling])
    # What rests does not move, its running statistics included.
    for name, value in before.items():
        assert torch.equal(second["state"][name], value), name
    assert not second["training"]
    assert third["training"]
    moved = {name for name, value in before.items() if not torch.equal(third["state"][name], value)}
    assert {name for name in moved if "running_mean" in name}
    assert {name for name in moved if name.endswith("weight")}
    assert all(parameter.requires_grad for parameter in task.net.parameters())


def test_rates() -> None:
    stage = Stage("all", 100, learning_rate=2.0, warmup=0.2, decay_to=0.5)
    assert [stage.rate(progress) for progress in (0.0, 0.1, 0.2, 0.6, 1.0)] == pytest.approx([0.0, 1.0, 2.0, 1.5, 1.0])
    assert Stage("flat", 1).rate(0.0) == Stage("flat", 1).rate(1.0) == 1.0
    curriculum = Curriculum([READ, SEGMENT])
    assert [curriculum.where(sample) for sample in (0, 3, 5, 6, 10, 14, 99)] == [(0, 0.0), (0, 0.5), (0, 5 / 6), (1, 0.0), (1, 0.5), (1, 1.0), (1, 1.0)]


def test_what_a_constructor_froze_stays_frozen(tmp_path: Path) -> None:
    task = new_task()
    task.net.encoder.requires_grad_(False)
    task = GeoPixTask(task.net)
    watch, _ = fit(tmp_path, [Stage("one", 4, train=["llm.*"]), Stage("all", 4)], task)
    assert watch.steps[1]["learns"] == {"connector", "llm", "decoder", "memory"}
    assert not any(parameter.requires_grad for parameter in task.net.encoder.parameters())


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        (Stage("x", 4, train=["llm.*", "decodr.*"]), r"stage 'x' trains 'decodr\.\*', which matches no trainable parameter; the trainable parts are"),
        (Stage("x", 4, loss={"bxe": 1.0}), r"unknown loss weight \['bxe'\]"),
    ],
)
def test_a_wrong_name_is_told_before_training(tmp_path: Path, stage: Stage, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        fit(tmp_path, [READ, stage], new_task())


def test_what_is_no_curriculum() -> None:
    with pytest.raises(ValueError, match="at least one stage"):
        Curriculum([])
    with pytest.raises(ValueError, match="stage 'x' has 0 samples"):
        Curriculum([Stage("x", 0)])


def test_fewer_samples_than_a_step(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"training has 2 samples, fewer than one step of 4"):
        fit(tmp_path, [Stage("x", 2)], new_task())
