"""What a run leaves: pictures, curves, and numbers with what they belong to."""

import json
from pathlib import Path

import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image

from geopix.curriculum import Curriculum, Stage
from geopix.data.module import GeoPixData
from geopix.decoders.dot import DotDecoder
from geopix.evaluation.numbers import table_of
from geopix.monitor import AnswerPictures, Curves
from geopix.results import Results
from tests import tiny, toys

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:Found .* module.* in eval mode", "ignore:The ``compute`` method of metric"
)


def test_pictures_curves_and_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    task, curves = toys.Guessing(tiny.model(decoder=DotDecoder)), Curves(every=1)
    stages = Curriculum([Stage("read", 2, train=["llm.*"]), Stage("draw", 2)])
    logger = TensorBoardLogger(tmp_path / "logs")
    trainer = toys.trainer(tmp_path, stages, AnswerPictures(count=4, every=2), curves, Results(), logger=logger, log_every_n_steps=1, val_check_interval=1)
    toy = toys.Toys(3)
    trainer.fit(task, datamodule=GeoPixData(toys.Toys(), val=toy, batch_size=2))
    assert trainer.global_step == 2
    for name in ("val-000001.png", "val-000002.png"):
        with Image.open(tmp_path / "pictures" / name) as picture:
            assert min(picture.size) > 100
    assert [step for step, _ in curves.history["train/loss"]] == [1, 2]
    assert [step for step, _ in curves.history["val/single/giou"]] == [1, 2]
    with Image.open(tmp_path / "curves.png") as picture:
        assert min(picture.size) > 100
    again = Curves()
    again.load_state_dict(json.loads(json.dumps(curves.state_dict())))
    assert again.history == curves.history
    assert any(file.name.startswith("events") for file in (tmp_path / "logs").rglob("*"))

    trainer.test(task, datamodule=GeoPixData(test=toy, batch_size=2), verbose=False)
    assert (tmp_path / "pictures" / "test.png").is_file()
    result = json.loads((tmp_path / "metrics.json").read_text())
    assert result.keys() >= {"protocol", "data", "command", "metrics"}
    assert (result["protocol"], result["data"]) == ("generate", "toys, 3 images")
    assert result["command"].split()[0] == "geopix"
    # Of three images the first is not answered, the others are drawn one and two pixels too far right.
    assert result["metrics"]["single/giou"] == pytest.approx((0 + 19 / 21 + 18 / 22) / 3, abs=1e-4)
    assert result["metrics"]["absent/n_acc"] == 1.0
    assert result["metrics"]["control/class_union_giou"] == 1.0
    assert "control/shuffled_giou" in result["metrics"]
    said = capsys.readouterr().out
    assert "toys, 3 images  (protocol: generate)" in said
    assert str(tmp_path / "metrics.json") in said


def test_the_table_leaves_counts_out() -> None:
    assert table_of({"single/giou": 0.5, "single/count": 3.0, "vqa/presence_num": 2.0, "absent/num_targets": 1.0}) == "  single/giou    0.500"


def test_the_table_leaves_out_how_many_but_not_how_well_things_are_counted() -> None:
    shown = table_of({"single/giou": 0.5, "single/count": 9.0, "vqa/count": 0.25, "vqa/count_num": 4.0, "absent/num_absent": 2.0})
    assert [line.split()[0] for line in shown.splitlines()] == ["single/giou", "vqa/count"]
