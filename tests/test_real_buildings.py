"""The whole way on real crops: COCO with expressions to records, to a training step, to scores at the crops' own size, to files."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from lightning.pytorch import Trainer
from PIL import Image

from geopix.data.instruct import RealImages
from geopix.data.module import GeoPixData
from geopix.data.source import collate
from geopix.data.sources.coco import convert_coco
from geopix.evaluation.outcome import own_truth
from geopix.evaluation.scores import Scores
from geopix.losses import loss_terms
from geopix.predictions import WritePredictions
from geopix.task import GeoPixTask
from geopix.types import Drawing, Prediction
from tests import tiny

FAIR = Path(__file__).parents[2] / "shared" / "data" / "real" / "fair_buildings"

pytestmark = [
    pytest.mark.skipif(not FAIR.is_dir(), reason="the real buildings beside the project are absent"),
    pytest.mark.filterwarnings("ignore:.*custom batch sampler", "ignore:.*does not have many workers", "ignore:.*treespec, LeafSpec"),
    pytest.mark.filterwarnings("ignore:.*was called before the"),
]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fair") / "records.jsonl"
    convert_coco(FAIR / "annotations.json", path)
    return path


def test_regions_share_no_crop_and_agree_with_the_masks_png(records: Path) -> None:
    train, test = (RealImages(records, 64, split=region) for region in ("kampala", "catanduanes"))
    assert (train.count, test.count) == (7, 4)
    keys = set()
    for source in (train, test):
        source.check()
        for index in range(source.count or 0):
            batch = collate([source.sample(index, truth=True)])
            with Image.open(FAIR / "masks" / f"{batch.keys[0]}.png") as image:
                everything = torch.from_numpy(np.asarray(image) > 0)
            unions, truth = (own_truth(batch, given) for given in (batch.unions, batch.truth))
            for task, union, target in zip(batch.tasks, unions, truth, strict=True):
                assert all(torch.equal(mask, everything) for mask in union), "everything has the one class"
                assert all(mask.any() and not (mask & ~everything).any() for mask in target)
                assert bool(target) == (task in {"segment/single", "segment/multi", "segment/group"})
            keys.add(batch.keys[0])
    assert len(keys) == 11


def test_a_training_step_and_the_score_of_the_truth(records: Path) -> None:
    source = RealImages(records, 64, split="catanduanes")
    batch = collate([source.sample(index, truth=True) for index in range(2)])
    learnt = collate([source.sample(index) for index in range(2)], join=4)
    assert len(learnt.masks) == len(batch.masks)
    assert len(learnt.dialogues) < len(batch.dialogues)
    net = tiny.model()
    output = net(learnt, torch.ones(len(learnt.masks), dtype=torch.bool))
    assert set(output.class_ids.tolist()) == {tiny.CLASSES.index("building")}
    loss = sum(value / count.clamp(min=1) for value, count in loss_terms(output, learnt.masks).values())
    loss.backward()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in net.parameters())
    assert any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in net.encoder.parameters())

    scores = Scores()
    answers = tuple(tuple(turn.answer for turn in turns) for turns in batch.dialogues)
    scores.update(batch, Prediction(answers, Drawing(batch.masks.float() * 20 - 10, batch.dialogue_index)))
    computed = scores.compute()
    assert computed["absent/n_acc"] == computed["absent/t_acc"] == 1
    assert computed["single/giou"] > 0.6, "the truth at 64 px, scored at 512 px: what an eighth of the resolution can reach at best"


def test_answers_about_crops_name_their_files(records: Path, tmp_path: Path) -> None:
    trainer = Trainer(
        accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path, callbacks=[WritePredictions()],
    )  # fmt: skip
    source = RealImages(records, 32, split="catanduanes")
    trainer.predict(GeoPixTask(tiny.model(), max_new_tokens=4), datamodule=GeoPixData(predict=source, batch_size=4))
    lines = [json.loads(line) for line in (tmp_path / "predictions" / "answers.jsonl").read_text().splitlines()]
    assert len(lines) == 4
    for line in lines:
        with rasterio.open(line["image"]) as given:
            assert [given.height, given.width] == line["size"] == [512, 512]
        assert Path(line["image"]).stem == line["key"]
        with Image.open(tmp_path / "predictions" / line["files"]["picture"]) as picture:
            assert picture.width >= 512, "shown from the file, not from the canvas"
