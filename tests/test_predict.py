"""From files and questions to files with answers: what a person gets from `geopix predict`, with a tiny model that writes its masks."""

import json
import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
import yaml
from lightning.pytorch import LightningModule, Trainer
from PIL import Image

from geopix.data import ask
from geopix.data.ask import Ask
from geopix.data.frame import letterbox
from geopix.data.instruct import RealImages
from geopix.data.module import GeoPixData
from geopix.data.source import Source, collate
from geopix.decoders.dot import DotDecoder
from geopix.losses import loss_terms
from geopix.model import GeoPixModel
from geopix.predictions import WritePredictions, summary
from geopix.rle import decode_rle
from geopix.task import GeoPixTask
from geopix.types import Batch, Dialogue, Drawing, Frame, Prediction, Sample, Turn
from tests import tiny
from tests.commands import ROOT, TINY, geopix
from tests.commands import tiny as command

SIZE, STEPS = 32, 120
SAID = {
    "[segment] the large red ship": "Sure, it is [SEG].",
    "[segment] the large and the red ship": "Sure, they are [SEG] and [SEG].",
    "[vqa] is there a plane in the image?": "no",
}
PLACE = {"crs": "EPSG:32636", "transform": rasterio.transform.from_origin(448262.1, 5411932.7, 0.3, 0.3)}

pytestmark = pytest.mark.filterwarnings("ignore:.*custom batch sampler", "ignore:.*does not have many workers", "ignore:.*treespec, LeafSpec")


@pytest.fixture(scope="module")
def net() -> GeoPixModel:
    """A tiny model that has learnt three answers by heart, on any image; its masks are what is bright."""
    torch.manual_seed(0)
    net = tiny.model(memory=False, decoder=DotDecoder)
    frame = Frame(SIZE, SIZE, 1.0, 0, 0, (SIZE, SIZE))
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    for step in range(STEPS):
        bright = torch.zeros(SIZE, SIZE, dtype=torch.bool)
        bright[:, : SIZE // 2] = True
        bright = torch.rot90(bright, step % 4)
        # A second turn asks the same again, so that answers after answers are learnt too.
        talks = tuple(
            Dialogue((Turn(prompt, answer),) * turns, bright.expand(turns * answer.count("[SEG]"), SIZE, SIZE))
            for prompt, answer in SAID.items()
            for turns in (1, 2)
        )
        image = 0.3 * torch.rand(3, SIZE, SIZE) + 0.7 * bright
        batch = collate([Sample(image, talks, "learnt", frame)])
        terms = {name: value / count.clamp(min=1) for name, (value, count) in loss_terms(net(batch), batch.masks).items()}
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
    assert terms["text"] < 0.1, terms
    assert terms["dice"] < 0.3, terms
    return net


def predict(net: GeoPixModel | LightningModule, source: Source, folder: Path, **options: object) -> tuple[list[dict], WritePredictions]:
    writer = WritePredictions(folder / "answers", **options)
    trainer = Trainer(
        accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder, callbacks=[writer],
    )  # fmt: skip
    data = GeoPixData(predict=source, batch_size=2)
    returned = trainer.predict(net if isinstance(net, LightningModule) else GeoPixTask(net, max_new_tokens=24), datamodule=data)
    assert not returned, "what is written is not also kept in memory"
    assert trainer.predict_loop.predictions in ([], [[]])
    lines = (folder / "answers" / "answers.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines], writer


def png(path: Path, height: int = 40, width: int = 60) -> Path:
    """A dark image that is bright in its upper half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(0).integers(0, 70, (height, width, 3), dtype=np.uint8)
    values[: height // 2] += 170
    Image.fromarray(values).save(path)
    return path


def geotiff(path: Path, bands: int = 3, dtype: str = "uint8") -> Path:
    """A dark image that is bright in its left half."""
    values = np.random.default_rng(1).integers(0, 70, (bands, 50, 44)).astype(dtype)
    values[:, :, :22] += 170
    with rasterio.open(path, "w", driver="GTiff", count=bands, height=50, width=44, dtype=dtype, **PLACE) as file:
        file.write(values)
    return path


def test_a_png_with_two_questions(net: GeoPixModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = Ask(png(tmp_path / "a.png"), ["the large red ship", "[vqa] is there a plane in the image?"], SIZE)
    (line,), _ = predict(net, source, tmp_path)
    assert (line["key"], line["image"], line["size"], line["files"]) == ("a", str(tmp_path / "a.png"), [40, 60], {"picture": "a.png"})
    ship, plane = line["dialogues"]
    assert (ship["prompt"], ship["answer"], ship["labels"]) == ("[segment] the large red ship", "Sure, it is [SEG].", ["the large red ship"])
    (mask,) = map(decode_rle, ship["masks"])
    assert mask.shape == (40, 60)
    assert mask[8:18].float().mean() > 0.9
    assert mask[23:].float().mean() < 0.1
    assert (plane["answer"], plane["status"], plane["masks"]) == ("no", "no_mask", [])
    with Image.open(tmp_path / "answers" / "a.png") as picture:
        assert picture.width >= 384
    said = capsys.readouterr().out
    assert "2 answer(s) about 1 image(s), 1 with masks" in said
    assert str(tmp_path / "answers") in said


def test_masks_of_a_geotiff_lie_where_it_lies(net: GeoPixModel, tmp_path: Path) -> None:
    source = Ask([geotiff(tmp_path / "field.tif")], "the large and the red ship", SIZE)
    (line,), _ = predict(net, source, tmp_path, bands=[2], stretch=(2, 98))
    (asked,) = line["dialogues"]
    assert asked["labels"] == ["the large and the red ship (1)", "the large and the red ship (2)"]
    with rasterio.open(tmp_path / "answers" / line["files"]["masks"]) as written, rasterio.open(tmp_path / "field.tif") as given:
        assert (written.crs, written.transform, written.shape, written.count) == (given.crs, given.transform, given.shape, 2)
        for band, mask in zip(written.read(), asked["masks"], strict=True):
            assert np.array_equal(band, decode_rle(mask).numpy().astype(np.uint8))
            assert band[:, :20].mean() > 0.9
            assert band[:, 25:].mean() < 0.1
    features = json.loads((tmp_path / "answers" / "field.geojson").read_text())["features"]
    assert {feature["properties"]["index"] for feature in features} == {1, 2}


def test_a_folder_and_an_answer_without_masks(net: GeoPixModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("b.png", "a.JPG", "deep/a.png", ".hidden.png"):
        png(tmp_path / "in" / name, 20, 33)
    (tmp_path / "in" / "notes.txt").write_text("no image")
    lines, _ = predict(net, Ask(tmp_path / "in", ["[vqa] is there a plane in the image?"], SIZE, recursive=True), tmp_path)
    assert [line["key"] for line in lines] == ["a", "b", "deep/a"]
    assert {dialogue["answer"] for line in lines for dialogue in line["dialogues"]} == {"no"}, "no mask in any batch"
    assert (tmp_path / "answers" / "deep__a.png").exists()
    assert "lack one" not in capsys.readouterr().out, "nobody asked for masks"
    assert Ask(tmp_path / "in", "a", SIZE).count == 2
    with pytest.raises(ValueError, match="answers of an earlier run"):
        predict(net, Ask(tmp_path / "in", "[vqa] is there a plane in the image?", SIZE), tmp_path)
    lines, _ = predict(net, Ask(tmp_path / "in", "[vqa] is there a plane in the image?", SIZE), tmp_path, overwrite=True)
    assert len(lines) == 2
    assert not (tmp_path / "answers" / "deep__a.png").exists()


def test_a_jsonl_with_questions_and_turns(net: GeoPixModel, tmp_path: Path) -> None:
    png(tmp_path / "a.png")
    geotiff(tmp_path / "b.tif")
    records = [
        {"image": "a.png", "prompts": ["[vqa] is there a plane in the image?", ["the large red ship", "the large red ship"]]},
        {"image": "b.tif", "key": "field", "prompts": ["the large and the red ship"]},
        {"image": "a.png", "key": "again"},
    ]
    path = tmp_path / "ask.jsonl"
    path.write_text("\n".join(map(json.dumps, records)) + "\n\n")
    source = Ask(path, "the large red ship", SIZE)
    assert [dialogue.task for dialogue in source.sample(0).dialogues] == ["vqa/asked", "segment/asked"]
    lines, _ = predict(net, source, tmp_path)
    answers = {line["key"]: [dialogue["answer"] for dialogue in line["dialogues"]] for line in lines}
    one, two = "Sure, it is [SEG].", "Sure, they are [SEG] and [SEG]."
    assert answers == {"a": ["no", one, one], "field": [two], "again": [one]}
    assert [dialogue["index"] for dialogue in lines[0]["dialogues"]] == [[], [1], [2]], "a turn has its own masks"
    assert set(lines[1]["files"]) == {"picture", "masks", "vectors"}


def test_a_line_of_a_jsonl_may_name_a_part_and_a_place(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    geotiff(tmp_path / "a.tif")
    png(tmp_path / "b.png")
    place = {"crs": "EPSG:32636", "transform": [0.3, 0, 448262.1, 0, -0.3, 5411932.7]}
    records = [
        {"image": "a.tif", "window": [30, 20, 10, 16]},
        {"image": "a.tif", "window": [0, 0, 10, 16], "key": "corner"},
        {"image": "b.png", "georeference": place, "split": "test", "promts": ["x"]},
    ]
    path = tmp_path / "ask.jsonl"
    path.write_text("\n".join(map(json.dumps, records)))
    source = Ask(path, "ships?", SIZE)
    with caplog.at_level(logging.WARNING):
        source.check()
    assert "fields that nothing reads (with the number of lines): {'promts': 1}. A line may hold image, prompts" in caplog.text
    part, corner, placed = map(source.sample, range(3))
    assert [part.key, corner.key, placed.key] == ["a_30_20_10_16", "corner", "b"]
    assert (part.frame.height, part.frame.width, source.original(part.key).values.shape) == (16, 10, (3, 16, 10))
    assert part.georeference is not None
    assert part.georeference["transform"][2::3] == pytest.approx((448262.1 + 9, 5411932.7 - 6))
    assert placed.georeference == {"crs": rasterio.CRS.from_epsg(32636).to_wkt(), "transform": tuple(place["transform"])}
    wrong = [
        {"image": "a.tif", "window": [40, 0, 10, 16]},
        {"image": "a.tif", "window": [0, 0, 10]},
        {"image": "b.png", "georeference": place | {"crs": "nowhere"}},
    ]
    path.write_text("\n".join(map(json.dumps, wrong)))
    with pytest.raises(ValueError, match=r"line 2: window is \[0, 0, 10\]; expected the part of the image"):
        Ask(path, "ships?", SIZE).check()
    path.write_text("\n".join(map(json.dumps, wrong[::2])))
    with pytest.raises(ValueError, match="2 problem") as caught:
        Ask(path, "ships?", SIZE).check()
    assert "the window [40, 0, 10, 16] (left, top, width, height) does not lie in it" in str(caught.value)
    assert "'nowhere'" in str(caught.value)


def test_a_source_without_files_shows_what_the_model_saw(net: GeoPixModel, tmp_path: Path) -> None:
    class Drawn(Source):
        bands, count, title = 3, 1, "drawn"

        def sample(self, index: int, mix: object = None, *, truth: bool = False, epoch: int = 0) -> Sample:
            frame = Frame(16, 24, SIZE / 24, 5, 0, (SIZE, SIZE))
            return Sample(torch.full((3, SIZE, SIZE), 0.5), (Dialogue((Turn("[segment] the large red ship"),)),), "drawn", frame)

        def check(self) -> None:
            pass

    (line,), _ = predict(net, Drawn(), tmp_path)
    assert (line["image"], line["size"], line["dialogues"][0]["answer"]) == (None, [16, 24], "Sure, it is [SEG].")


def test_keys_differ(tmp_path: Path) -> None:
    files = [png(tmp_path / name) for name in ("a.png", "a.jpg", "b.png", "deep/b.png", "c.png")]
    source = Ask(files, "x", SIZE)
    keys = [source.sample(index).key for index in range(5)]
    assert keys == ["a.png", "a.jpg", (tmp_path / "b.png").as_posix(), (tmp_path / "deep/b.png").as_posix(), "c"]
    assert [source.original(key).path for key in keys] == files


def test_prompts_get_the_tag_of_a_task_unless_they_have_one(tmp_path: Path) -> None:
    def asked(**options: object) -> list[str]:
        return [dialogue.turns[0].prompt for dialogue in Ask(file, ["ship?", "[vqa] ship?", "[the] ship"], SIZE, **options).sample(0).dialogues]

    file = png(tmp_path / "a.png")
    assert asked() == ["[segment] ship?", "[vqa] ship?", "[segment] [the] ship"]
    assert asked(task="caption")[0] == "[caption] ship?"
    assert asked(task=None) == ["ship?", "[vqa] ship?", "[the] ship"]


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    png(tmp_path / "a.png")
    (tmp_path / "empty").mkdir()
    png(tmp_path / "outer" / "inner" / "a.png")
    lines = [
        "{no json", "[1]", '{"image": 3}', '{"image": "none.png"}', '{"image": "a.png", "prompts": "x"}', '{"image": "a.png", "prompts": [""]}',
        '{"image": "a.png", "prompts": [["x", 1]]}', '{"image": "a.png", "dialogues": []}',
    ]  # fmt: skip
    (tmp_path / "ask.jsonl").write_text("\n".join(lines))
    (tmp_path / "none.jsonl").write_text("\n")
    images = [tmp_path / name for name in ("gone.png", "nowhere/gone.png", "empty", "outer", "ask.jsonl", "none.jsonl")]
    with pytest.raises(ValueError, match=r"problem\(s\)") as caught:
        Ask(images, [], SIZE).check()
    found = str(caught.value)
    for words in (
        "gone.png does not exist; expected an image or a folder", "nor does its folder", "empty holds no image", "The folders inside it hold 1; say recursive",
        "line 1 is not valid JSON", "line 2: expected an object", "line 3: expected an object", "none.png does not exist", "line 5: expected an object",
        "line 6, prompts[0]: expected a text", "line 7, prompts[0]: expected a text", "RealImages", "none.jsonl names no image",
    ):  # fmt: skip
        assert words in found, found
    for prompts, words in (([], "1 image(s) have no prompts"), (["where is [SEG]?"], "must not contain"), ([" "], "expected a text")):
        with pytest.raises(ValueError, match="problem") as caught:
            Ask(tmp_path / "a.png", prompts, SIZE).check()
        assert words in str(caught.value)
    with pytest.raises(ValueError, match="named 2 times"):
        Ask([tmp_path / "a.png", tmp_path / "a.png"], "x", SIZE).check()
    with pytest.raises(ValueError, match="images is empty"):
        GeoPixData(predict=Ask([], "x", SIZE)).setup("predict")


def test_what_cannot_be_read_is_told_before_anything_is_computed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "lfs.png").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    files = [tmp_path / "lfs.png", png(tmp_path / "a.png"), geotiff(tmp_path / "two.tif", 2), geotiff(tmp_path / "deep.tif", 3, "uint16")]
    with pytest.raises(ValueError, match="3 problem") as caught:
        Ask(files, "x", SIZE).check()
    for words in ("git-lfs pointer", "no range is declared", "different numbers of bands: 3", "2 ("):
        assert words in str(caught.value)
    source = Ask(files[2:], "x", SIZE, bands=[2], high=255)
    source.check()
    assert (source.bands, source.sample(1).image.shape) == (1, (1, SIZE, SIZE))
    with pytest.raises(ValueError, match="questions without answers"):
        source.sample(0, truth=True)
    with caplog.at_level(logging.WARNING):
        Ask(png(tmp_path / "wide.png", 8, 300), "x", SIZE).check()
    assert "1 of 1 images are more than 8 times larger" in caplog.text


def test_the_summary_says_how_many_drew_nothing() -> None:
    assert summary(2, Counter(ok=3), Counter(ok=3)) == "3 answer(s) about 2 image(s), 3 with masks."
    said = summary(2, Counter(ok=1, no_mask=4, empty_mask=1), Counter(ok=1, no_mask=2, empty_mask=1))
    assert "3 of 4 answers to questions for masks lack one: 2 without [SEG], 1 with an empty mask." in said
    assert "was not trained to write it" in said
    assert "are empty" not in said
    said = summary(1, Counter(empty_mask=3), Counter(empty_mask=3), [0.31, 0.0, 0.0])
    assert "3 mask(s) are empty: no pixel is more likely inside than outside; the highest probability in them is 0.31. 2 of them with 0" in said
    assert "not trained" not in said, "that is no reason for an empty mask"


class Draws(LightningModule):
    """Answers one question about one image with given masks."""

    def __init__(self, drawing: Drawing) -> None:
        super().__init__()
        self.drawing = drawing

    def predict_step(self, batch: Batch, batch_idx: int) -> Prediction:
        return Prediction((("[SEG]" * len(self.drawing.mask_logits),),), self.drawing)


def written(source: Source, folder: Path, logits: list[float], **stated: torch.Tensor) -> dict:
    """The answer to the one question about an image, with a mask for each logit, that one everywhere."""
    drawing = Drawing(torch.tensor(logits)[:, None, None].expand(-1, 8, 8), torch.zeros(len(logits), dtype=torch.long), **stated)
    (line,), _ = predict(Draws(drawing), source, folder)
    (asked,) = line["dialogues"]
    return asked


def test_scores_of_each_mask_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = Ask(geotiff(tmp_path / "a.tif"), "ships?", SIZE)
    stated = {"presence": torch.tensor([0.0, 100.0, 0.0]), "quality": torch.tensor([0.25, 0.75, 0.5])}
    asked = written(source, tmp_path, [2.0, -1.0, -1024.0], **stated)
    scores = [{"probability": 0.8808, "presence": 0.5, "quality": 0.25}, {"probability": 0.2689, "presence": 1.0, "quality": 0.75}]
    assert asked["scores"] == [*scores, {"probability": 0.0, "presence": 0.5, "quality": 0.5}]
    assert asked["status"] == "empty_mask"
    (feature,) = json.loads((tmp_path / "answers" / "a.geojson").read_text())["features"]
    assert scores[0].items() <= feature["properties"].items()
    said = capsys.readouterr().out
    assert "2 mask(s) are empty: no pixel is more likely inside than outside; the highest probability in them is 0.269. 1 of them with 0" in said


@pytest.mark.parametrize("how", ["mask", "alpha", "nodata"])
def test_nothing_is_drawn_where_an_image_has_no_data(tmp_path: Path, how: str) -> None:
    values, there = np.full((4, 40, 60), 200, dtype=np.uint8), np.zeros((40, 60), dtype=np.uint8)
    there[5:30, 10:50] = 255
    values[3] = there
    kind = {"driver": "GTiff", "height": 40, "width": 60, "dtype": "uint8", "count": 4 if how == "alpha" else 3, "photometric": "RGB", "alpha": "YES", **PLACE}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(tmp_path / "a.tif", "w", **kind) as file:
        if how == "nodata":
            file.nodata = 0
            values[:, there == 0] = 0
        file.write(values[: file.count])
        if how == "mask":
            file.write_mask(there)
    asked = written(Ask(tmp_path / "a.tif", "ships?", SIZE), tmp_path, [2.0])
    assert np.array_equal(decode_rle(asked["masks"][0]).numpy(), there > 0)


def test_files_of_a_source_that_no_verb_reads_may_be_missing(tmp_path: Path) -> None:
    gone = RealImages(tmp_path / "gone.jsonl", SIZE)
    GeoPixData(train=gone, test=Ask(tmp_path / "gone.png", "x", SIZE), predict=Ask(png(tmp_path / "a.png"), "x", SIZE)).setup("predict")
    with pytest.raises(FileNotFoundError, match=r"gone.jsonl do not exist"):
        GeoPixData(train=gone).setup("fit")


def test_other_bands_than_the_models_are_told_before_anything_is_computed(net: GeoPixModel, tmp_path: Path) -> None:
    for bands, chosen in ((1, r"\[1, 1, 1\]"), (5, r"\[1, 2, 3\]")):
        path = geotiff(tmp_path / f"{bands}.tif", bands)
        with pytest.raises(ValueError, match=rf"{bands}.tif gives {bands} band\(s\), but the model reads 3. .*--data.predict.bands '{chosen}'"):
            predict(net, Ask(path, "ship?", SIZE), tmp_path)
    assert not (tmp_path / "answers").exists()


def test_the_options_that_messages_advise_exist(tmp_path: Path) -> None:
    words = ["--data.predict", "geopix.data.ask.Ask", "--data.predict.images", png(tmp_path / "a.png"), "--data.predict.prompts", "ship?"]
    words += ["--allow_random", "true", "--trainer.callbacks+", "geopix.predictions.WritePredictions", "--trainer.callbacks.output", tmp_path / "out"]
    command("predict", tmp_path / "run", *words)
    again = geopix("predict", "--config", TINY, "--trainer.default_root_dir", tmp_path / "run", *words)
    assert again.code != 0
    assert "--trainer.callbacks.overwrite true" in again.err
    command("predict", tmp_path / "run", *words, "--trainer.callbacks.overwrite", "true")
    assert (tmp_path / "out" / "a.png").exists()
    for path in (ROOT / "configs").glob("*.yaml"):
        callbacks = yaml.safe_load(path.read_text(encoding="utf-8")).get("trainer", {}).get("callbacks", [])
        names = [each["class_path"] for each in callbacks]
        assert "geopix.predictions.WritePredictions" not in names[:-1], f"{path}: the options mean the last callback"


def test_the_command_asks_at_the_size_of_the_other_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(ask, "letterbox", lambda image, size: (seen.append(size), letterbox(image, size))[1])
    words = ["--data.predict", "geopix.data.ask.Ask", "--data.predict.images", png(tmp_path / "a.png"), "--data.predict.prompts", "ship?"]
    words += ["--trainer.callbacks+", "geopix.predictions.WritePredictions"]
    for more, size in (((), 64), (("--data.predict.size", 96), 96)):
        command("predict", tmp_path / f"run{size}", "--allow_random", "true", *words, *more)
        assert set(seen) == {size}
        seen.clear()
    with pytest.raises(ValueError, match="size that the model was trained at is not known"):
        Ask(png(tmp_path / "b.png"), "ship?").check()


def test_a_source_without_options_can_be_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = "from pathlib import Path\nfrom geopix.data.ask import Ask\n\nclass Bare(Ask):\n    def __init__(self) -> None:\n"
    (tmp_path / "bare.py").write_text(f"{bare}        super().__init__(Path('a.png'), 'ship?', 64)\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    png(tmp_path / "a.png")
    command("predict", tmp_path / "run", "--allow_random", "true", "--data.predict", "bare.Bare", "--trainer.callbacks+", "geopix.predictions.WritePredictions")
    assert (tmp_path / "run" / "predictions" / "answers.jsonl").read_text(encoding="utf-8").count("\n") == 1


def test_infrared_that_the_library_calls_alpha_hides_nothing(tmp_path: Path) -> None:
    values = np.full((4, 8, 8), 90, dtype=np.uint8)
    values[3, :4] = 0
    for name, last, hidden in (("infrared", 90, False), ("alpha", 255, True)):
        values[3, 4:] = last
        values[3, 5, 5] -= not hidden
        with rasterio.open(tmp_path / f"{name}.tif", "w", driver="GTiff", count=4, height=8, width=8, dtype="uint8", **PLACE) as file:
            file.write(values)
        original = Ask(tmp_path / f"{name}.tif", "ship?", 8, bands=[1, 2, 3]).original(name)
        assert original.valid.all() != hidden
