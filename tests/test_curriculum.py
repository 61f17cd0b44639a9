"""Stages: what learns, at which rate, on which tasks, and that nothing else moves."""

import math
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback

from geopix.curriculum import Curriculum, Stage, _rest
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
        (Stage("x", 8, train=["llm.*", "decodr.*"]), r"stage 'x' trains 'decodr\.\*', which matches no trainable parameter; the trainable parts are"),
        (Stage("x", 8, loss={"bxe": 1.0}), r"unknown loss weight \['bxe'\]"),
        (Stage("x", 8, data={"segmnt": 1.0}), r"stage 'x' asks for 'segmnt', of which 'segmnt' is no task; did you mean 'segment'"),
        (Stage("x", 8, data={"words": 1.0}), r"stage 'x' asks for 'words', of which 'words' is no task; expected \['caption', 'refer', 'segment', 'vqa'\]"),
        (Stage("x", 1), r"stage 'x' is passed over: no step of 4 samples .* begins among its 1 from number 6 on"),
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
    for wrong in (Stage("x", 9, warmup=100.0), Stage("x", 9, decay_to=-1.0), Stage("x", 9, learning_rate=-1.0)):
        with pytest.raises(ValueError, match="stage 'x' has warmup"):
            Curriculum([wrong])


def test_kinds_that_only_look_alike_are_tasks(tmp_path: Path) -> None:
    for kinds, asked in ((("segment/group", "refer/unique"), {"segment": 1.0, "segment/grounded": 1.0, "refer/non_unique": 1.0}), ((), {"detect": 1.0})):
        source = toys.Toys()
        source.kinds = kinds
        trainer = toys.trainer(tmp_path, curriculum := Curriculum([Stage("x", 8, data=asked)]))
        trainer.datamodule = GeoPixData(source, batch_size=4)
        curriculum.setup(trainer, new_task(), "fit")
    with pytest.raises(ValueError, match=r"of which 'singel' is no task; did you mean 'single'"):
        fit(tmp_path, [Stage("x", 8, data={"segment/singel": 1.0})], new_task())


def test_a_scheduler_beside_a_curriculum_is_refused(tmp_path: Path) -> None:
    task = new_task()
    task.scheduler = lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1)
    with pytest.raises(ValueError, match=r"model\.scheduler is set beside a curriculum"):
        fit(tmp_path, [READ], task)


def test_a_second_epoch_is_refused(tmp_path: Path) -> None:
    for settings in ({"max_epochs": 2}, {"max_epochs": -1, "max_steps": 9}):
        with pytest.raises(ValueError, match="a training is one pass over its 8 samples"):
            toys.trainer(tmp_path, Curriculum([SEGMENT]), **settings).fit(new_task(), datamodule=GeoPixData(toys.Toys(), batch_size=4))
    trainer = toys.trainer(tmp_path, Curriculum([SEGMENT]), max_epochs=-1, max_steps=1)
    trainer.fit(new_task(), datamodule=GeoPixData(toys.Toys(), batch_size=4))
    assert trainer.global_step == 1


def test_a_stage_begins_with_an_optimizer_step(tmp_path: Path) -> None:
    task, watch = new_task(), Watch()
    trainer = toys.trainer(tmp_path, Curriculum([Stage("one", 6, train=["llm.*"]), Stage("all", 10)]), watch, accumulate_grad_batches=2)
    trainer.fit(task, datamodule=GeoPixData(toys.Toys(), batch_size=2))
    assert [step["learns"] == {"llm"} for step in watch.steps] == [True] * 4 + [False] * 4, "the fourth batch shares the step of the third"


def test_what_rests_has_no_dropout_but_checkpoints(tmp_path: Path) -> None:
    class Tower(torch.nn.Module):
        """Keeps its frozen half in evaluation mode, as encoders with adapters do."""

        def __init__(self) -> None:
            super().__init__()
            self.frozen, self.adapter = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout()), torch.nn.Linear(2, 2)
            self.frozen.requires_grad_(False)
            self.frozen[0].extra = torch.nn.Linear(2, 2)  # an adapter inside

        def train(self, mode: bool = True) -> "Tower":
            super().train(mode)
            self.frozen.eval()
            return self

    class Parts(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tower, self.head = Tower(), torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout())
            self.layer = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout())
            self.layer.gradient_checkpointing = True

    net = Parts()
    managed = {id(parameter): parameter for parameter in net.parameters() if parameter.requires_grad}
    _rest(net, set(managed), training=True, own=False)
    assert net.head[1].training
    assert net.tower.adapter.training
    assert not any(module.training for module in net.tower.frozen.modules()), "what never trains is known by the part itself"
    for parameter in managed.values():
        parameter.requires_grad_(False)
    next(net.tower.adapter.parameters()).requires_grad_(True)
    _rest(net, set(managed), training=True, own=False)
    assert not net.head[1].training
    assert net.tower.adapter.training
    assert net.layer.training, "transformers checkpoints activations in training mode alone"
    assert not net.layer[1].training


def test_fewer_samples_than_a_step(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"training has 2 samples, fewer than one step of 4"):
        fit(tmp_path, [Stage("x", 2)], new_task())
