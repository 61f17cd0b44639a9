"""How a model is trained: every parameter takes part in every step, and a step repeats itself."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from timm.optim import Muon

from geopix.curriculum import Curriculum, Stage
from geopix.data.module import GeoPixData
from geopix.data.source import collate
from geopix.decoders.dot import DotDecoder
from geopix.task import GeoPixTask
from geopix.types import Drawing, Prediction, Sample
from tests import tiny, toys

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")


class Gradients(Callback):
    def on_after_backward(self, trainer, pl_module) -> None:
        self.missing = [name for name, parameter in pl_module.net.named_parameters() if parameter.requires_grad and parameter.grad is None]
        self.not_finite = [name for name, parameter in pl_module.net.named_parameters() if parameter.grad is not None and not parameter.grad.isfinite().all()]


@pytest.mark.parametrize("decoder", [DotDecoder, tiny.MultiScaleDecoder])
def test_captions_alone_reach_every_parameter(tmp_path: Path, decoder: type) -> None:
    seen, net = Gradients(), tiny.model(decoder=decoder)
    net.decoder.register_parameter("seldom", torch.nn.Parameter(torch.zeros(2)))  # of a path that this batch does not take
    task = GeoPixTask(net)
    trainer = toys.trainer(tmp_path, seen)
    trainer.fit(task, datamodule=GeoPixData(toys.Toys(kinds=("caption/scene",)), samples=2, batch_size=2))
    assert trainer.global_step == 1
    assert seen.missing == []
    assert seen.not_finite == []
    assert {name for name in trainer.callback_metrics if name.startswith("train/")} >= {"train/text", "train/bce", "train/loss"}
    assert trainer.callback_metrics["train/bce"] == 0


class Spoilt(toys.Toys):
    """The third image is not a number."""

    def sample(self, index: int, mix: Mapping[str, float] | None = None, *, truth: bool = False, epoch: int = 0) -> Sample:
        found = super().sample(index, mix, truth=truth, epoch=epoch)
        return replace(found, image=found.image * float("nan")) if index == 2 else found


def test_a_loss_that_is_no_number_ends_the_training_before_it_spoils_the_weights(tmp_path: Path) -> None:
    task = GeoPixTask(tiny.model(decoder=DotDecoder))
    with pytest.raises(ValueError, match=r"step 1: the gradients of \d+ parameters are not finite") as said:
        toys.trainer(tmp_path).fit(task, datamodule=GeoPixData(Spoilt(), samples=6, batch_size=2))
    assert "a loss of nan of the images toy-2, toy-3" in str(said.value)
    assert all(parameter.isfinite().all() for parameter in task.net.parameters())


def test_the_images_of_a_spoilt_batch_are_named_though_others_follow_it_in_the_step(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a loss of nan of the images toy-2, toy-3\n"):
        toys.trainer(tmp_path, accumulate_grad_batches=3).fit(
            GeoPixTask(tiny.model(decoder=DotDecoder)), datamodule=GeoPixData(Spoilt(), samples=6, batch_size=2)
        )


@pytest.mark.parametrize("told", [True, False])
def test_with_a_scaler_all_ranks_stop_for_a_loss_of_any_and_none_for_an_overflow(told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = GeoPixTask(tiny.model(decoder=DotDecoder))
    mean = task._mean_over_ranks

    def of_another_rank(sums: torch.Tensor) -> torch.Tensor:
        found = mean(sums).clone()
        found[:, 0] = float("nan") if told else found[:, 0]
        return found

    class Overflow(Callback):
        def on_train_start(self, trainer, pl_module) -> None:
            trainer.precision_plugin.scaler = object()

        def on_after_backward(self, trainer, pl_module) -> None:
            next(pl_module.net.encoder.parameters()).grad.fill_(float("inf"))

    monkeypatch.setattr(task, "_mean_over_ranks", of_another_rank)
    trainer, data = toys.trainer(tmp_path, Overflow()), GeoPixData(toys.Toys(), samples=2, batch_size=2)
    if not told:
        trainer.fit(task, datamodule=data)
        return
    with pytest.raises(ValueError, match="are not finite"):
        trainer.fit(task, datamodule=data)


def test_parts_without_a_part_in_the_losses_stay_where_they_are(tmp_path: Path) -> None:
    task = GeoPixTask(tiny.model(decoder=DotDecoder), optimizer=lambda groups: Muon(groups, lr=1e-2))
    moved: list[float] = []

    class Watch(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
            self.before = [parameter.detach().clone() for parameter in pl_module.net.decoder.parameters()]

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
            moved.append(sum(float((old - new.detach()).abs().sum()) for old, new in zip(self.before, pl_module.net.decoder.parameters(), strict=True)))

    stages = [Stage("masks", 4, data={"segment": 1.0}), Stage("words", 4, data={"caption": 1.0})]
    toys.trainer(tmp_path, Curriculum(stages), Watch()).fit(task, datamodule=GeoPixData(toys.Toys(), batch_size=2))
    assert all(moved[:2])
    assert moved[2:] == [0.0, 0.0], "momentum alone moves nothing"


def train(folder: Path, seed: int, named_share: float = 0.5) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = tiny.model(decoder=DotDecoder)
    task = GeoPixTask(model, optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1), named_share=named_share)
    torch.manual_seed(seed)
    toys.trainer(folder).fit(task, datamodule=GeoPixData(toys.Toys(), samples=4, batch_size=2))
    return {name: value for name, value in model.state_dict().items() if isinstance(value, torch.Tensor)}


def test_the_draws_of_a_step_follow_from_its_number(tmp_path: Path) -> None:
    one, two, told = train(tmp_path, 1), train(tmp_path, 2), train(tmp_path, 1, named_share=1.0)
    for name, value in one.items():
        assert torch.equal(value, two[name]), name
    assert any(not torch.equal(value, told[name]) for name, value in one.items()), "which masks are named matters"


def test_all_that_is_trainable_is_in_the_optimizer_in_three_groups() -> None:
    net = tiny.model(decoder=DotDecoder)
    net.encoder.requires_grad_(False)
    task = GeoPixTask(net, optimizer=lambda groups: torch.optim.AdamW(groups, lr=1e-3, weight_decay=0.1))
    net.llm.requires_grad_(False)  # as a stage would, before the optimizer is made
    matrices, tables, vectors = groups = task.configure_optimizers().param_groups
    assert [group["weight_decay"] for group in groups] == [0.1, 0.1, 0.0]
    assert all(parameter.ndim > 1 for parameter in matrices["params"])
    assert all(parameter.ndim <= 1 for parameter in vectors["params"])
    inside = {id(parameter) for group in groups for parameter in group["params"]}
    expected = {id(parameter) for part in (net.connector, net.llm, net.decoder, net.memory) for parameter in part.parameters()}
    assert inside == expected
    assert sum(len(group["params"]) for group in groups) == len(expected), "each once"
    entries = {id(net.llm.lm.get_input_embeddings().weight), id(net.llm.lm.get_output_embeddings().weight), id(net.memory.bank)}
    assert entries <= {id(parameter) for parameter in tables["params"]}


def test_muon_orthogonalises_matrices_alone() -> None:
    net = tiny.model(decoder=DotDecoder)
    task = GeoPixTask(net, optimizer=lambda groups: Muon(groups, lr=1.0, momentum=0.0, fallback_lr_scale=0.5, adjust_lr_fn="original"))
    optimizer = task.configure_optimizers()
    matrix, table = net.llm.lm.base_model.layers[0].mlp.down_proj.weight, net.llm.lm.get_input_embeddings().weight
    before = [matrix.detach().clone(), table.detach().clone()]
    torch.manual_seed(0)
    for parameter in (matrix, table):
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    step = before[0] - matrix.detach()
    values = torch.linalg.svdvals(step)
    assert values.max() / values.min() < 2.5, "a step in all directions alike"
    torch.testing.assert_close((before[1] - table.detach()).abs(), torch.full_like(table, 0.5), rtol=1e-3, atol=1e-3)  # Adam's first step


def test_a_scheduler_steps_once_per_step(tmp_path: Path) -> None:
    task = GeoPixTask(
        tiny.model(memory=False, decoder=DotDecoder),
        optimizer=lambda groups: torch.optim.SGD(groups, lr=1.0),
        scheduler=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5),
    )
    trainer = toys.trainer(tmp_path, gradient_clip_val=1e-3)
    trainer.fit(task, datamodule=GeoPixData(toys.Toys(), samples=3, batch_size=1))
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(1 / 8)


def test_a_forced_protocol_draws_for_the_true_answer(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = tiny.model(decoder=DotDecoder).eval()
    batch = collate([toys.sample(0, *toys.KINDS)])
    given = GeoPixTask(model, protocol="teacher_forced").answer(batch)
    assert given.answers == tuple(tuple(turn.answer for turn in turns) for turns in batch.dialogues)
    assert torch.equal(given.drawing.dialogue_index, batch.dialogue_index), "one mask for each that is asked for, whatever the model would have written"
    task = GeoPixTask(model, protocol="peers/rmsin")
    found = toys.trainer(tmp_path).test(task, datamodule=GeoPixData(test=toys.Toys(2), batch_size=2), verbose=False)[0]
    assert found["single/count"] == 2
    assert "single/miou" in found
    assert not any(name.startswith(("vqa", "caption", "absent", "control/shuffled")) for name in found)


def test_a_wrong_name_is_told_where_the_protocol_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.model()
    told: list[object] = []

    def answer(self, seen, prompts, image_index, *, max_new_tokens, classes) -> Prediction:
        told.append(classes)
        return Prediction(tuple(("",) * len(each) for each in prompts), Drawing(torch.zeros(0, 8, 8), image_index[:0]))

    monkeypatch.setattr(type(model), "generate", answer)
    batch = collate([toys.sample(0, "segment/multi", "segment/followup")])
    for protocol in ("generate", "generate_named", "generate_misnamed"):
        GeoPixTask(model, protocol=protocol).answer(batch)  # type: ignore[arg-type]
    after = dict(zip(model.classes, [*model.classes[1:], *model.classes[:1]], strict=True))
    assert told == [None, [["ship", "plane"], [None]], [[after["ship"], after["plane"]], [None]]]
