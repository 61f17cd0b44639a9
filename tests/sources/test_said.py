"""What the readers of public formats make of texts, boxes and oddities, read from their miniatures."""

import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from geopix.data.instruct import InstructRecords
from geopix.data.scenes.catalogue import CLASSES
from geopix.data.sources.captions import UCMCaptions
from geopix.data.sources.coco import COCO
from geopix.data.sources.diorrsvg import DIORRSVG
from geopix.data.sources.earthreason import EarthReason
from geopix.data.sources.files import read_pickle
from geopix.data.sources.geochat import GeoChatBench, GeoChatInstruct
from geopix.data.sources.geolabels import GeoLabels
from geopix.data.sources.geopixeld import GeoPixelD
from geopix.data.sources.geopixinstruct import GeoPixInstruct
from geopix.data.sources.names import DIOR, DOTA, FAIR1M, class_name
from geopix.data.sources.public import convert
from geopix.data.sources.reader import Reader, Report
from geopix.data.sources.rsvqa import RSVQALR
from geopix.data.sources.samrs import SAMRS
from geopix.data.sources.vrsbench import VRSBench
from geopix.data.sources.wording import from_classes
from geopix.metrics.boxes import parse_boxes
from tests.commands import ROOT
from tests.sources import layouts

FAIR = Path(__file__).parents[3] / "shared" / "data" / "real" / "fair_buildings"
LEFT = (19.0, 17.0, 50.0, 50.0)


def said(reader: Reader, report: Report | None = None) -> Iterator[tuple[str, list[tuple[str, str]], list[Any]]]:
    """Task, turns and targets of all dialogues."""
    for record in reader.records(report or Report()):
        for talk in record["dialogues"]:
            yield talk["task"], [(turn["prompt"], turn["answer"]) for turn in talk["turns"]], talk["targets"]


def test_geopixinstruct_decides_how_boxes_are_read_and_tells(tmp_path: Path) -> None:
    miniature = layouts.geopixinstruct(tmp_path)
    reports = [Report(), Report()]
    sior, sota = (next(iter(reader.records(report))) for reader, report in zip(miniature.readers, reports, strict=True))
    assert [one["box"] for one in sior["instances"]] == [one["box"] for one in sota["instances"]] == [[3, 2, 8, 6], [9, 7, 15, 10]]
    assert [one["class"] for one in sior["instances"]] == ["storage tank", "storage tank"]
    told = [next(remark for remark in report.remarks if "boxes are read" in remark) for report in reports]
    assert "boxes are read as xyxy. Of 4 boxes 0 contradict xyxy" in told[0]
    assert "boxes are read as xywh. Of 2 boxes 1 contradict xyxy and 0 xywh; median IoU with the masks" in told[1]
    tasks = {task: (turns, targets) for task, turns, targets in said(miniature.readers[0])}
    assert tasks["segment/multi"] == (
        [("[segment] please segment the white storage tank on the left and the storage tank at the lower right.",
          "The white storage tank on the left is [SEG] and the storage tank at the lower right is [SEG].")],
        [["00007_0"], ["00007_1"]],
    )  # fmt: skip
    forced = next(iter(GeoPixInstruct(tmp_path, tmp_path / "samrs", "valid", "SOTA", boxes="xyxy").records(Report())))
    assert "box" not in forced["instances"][0] or forced["instances"][0]["box"] != [3, 2, 8, 6]


def test_parquet_with_lists_in_place_of_objects(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet as parquet

    miniature = layouts.geopixinstruct(tmp_path)
    path = tmp_path / "data" / "train.SIOR_T-00000-of-00001.parquet"
    whole = list(said(miniature.readers[0]))
    rows = parquet.read_table(path).to_pylist()
    turned = [row | {"instances": {name: [one[name] for one in row["instances"]] for name in row["instances"][0]}} for row in rows]
    parquet.write_table(pyarrow.Table.from_pylist(turned), path)
    assert list(said(miniature.readers[0])) == whole


def test_classes_have_the_published_order() -> None:
    assert (len(DIOR), len(DOTA), len(FAIR1M)) == (20, 18, 37)
    assert (DIOR.index("dam"), DIOR.index("storage tank"), DOTA.index("ship"), FAIR1M.index("small car")) == (8, 15, 5, 29)


def test_the_memory_of_the_preset_knows_the_classes_of_dior() -> None:
    known = yaml.safe_load((ROOT / "configs" / "memory" / "classwise.yaml").read_text(encoding="utf-8"))["init_args"]["classes"]
    assert known == [class_name(name, Report()) for name in DIOR]
    report = Report()
    assert {class_name(name, report) for name in (*CLASSES, *DOTA, *FAIR1M)} > set(CLASSES), "scenes call the same things by the same names"
    assert not report.counts


def test_samrs_reads_classes_by_name_and_by_number(tmp_path: Path) -> None:
    record = next(iter(SAMRS(tmp_path).records(Report()))) if layouts.samrs(tmp_path) else {}
    assert [(one["id"], one["class"]) for one in record["instances"]] == [(0, "ship"), (2, "storage tank")]


def test_a_pickle_that_is_more_than_data_is_refused(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (print, ("run",))

    (tmp_path / "bomb.p").write_bytes(pickle.dumps([Bomb()]))
    with pytest.raises(ValueError, match=r"asks for builtins\.print, which is no data"):
        read_pickle(tmp_path / "bomb.p")


def test_dior_rsvg_numbers_objects_over_files_by_name(tmp_path: Path) -> None:
    layouts.diorrsvg(tmp_path)
    prompts = [turns[0][0] for split in ("train", "val", "test") for _, turns, _ in said(DIORRSVG(tmp_path, split))]  # type: ignore[arg-type]
    order = ["left of 00007", "right of 00008", "right of 00007", "left of 00008"]
    assert [next(place for place in order if place in prompt) for prompt in prompts] == order
    _, turns, _ = next(iter(said(DIORRSVG(tmp_path))))
    assert parse_boxes(turns[0][1]) == [LEFT]
    (tmp_path / "Annotations" / "00007.xml").unlink()
    with pytest.raises(ValueError, match=r"hold 2 objects, but .* number 4"):
        list(said(DIORRSVG(tmp_path)))


def test_geochat_boxes_are_upright_and_within_the_picture(tmp_path: Path) -> None:
    layouts.geochat_instruct(tmp_path)
    talks = list(said(GeoChatInstruct(tmp_path)))
    assert [task for task, _, _ in talks] == ["refer/box", "caption/region", "refer/grounded", "vqa/open"]
    assert talks[0][1] == [("[refer] where is 1 white storage tank at the left?", "It is at {<19><17><50><50>}.")]
    assert talks[1][1][0][1] == "1 storage tank at the right"
    first, turned, beyond = parse_boxes(talks[2][1][0][1])
    assert first == LEFT
    assert beyond == (0, 0, 100, 10)
    assert turned == (55, 44, 95, 97), "6.08 x 3 px turned by 45 degrees about (12, 8.46) px of 16 x 12"
    assert [prompt for prompt, _ in talks[3][1]] == ["[vqa] is it a city?", "[vqa] why not?"]


def test_geochat_bench_truths(tmp_path: Path) -> None:
    layouts.geochat_bench(tmp_path)
    (_, turns, _), *_ = said(GeoChatBench(tmp_path))
    assert parse_boxes(turns[0][1]) == [LEFT, (56, 58, 94, 83)]
    assert [turns[0][1] for _, turns, _ in said(GeoChatBench(tmp_path, "lrben"))] == ["yes"]
    assert [(task, turns[0][1]) for task, turns, _ in said(GeoChatBench(tmp_path, "aid"))] == [("vqa/scene", "Airport")]


def test_vrsbench_in_both_forms(tmp_path: Path) -> None:
    layouts.vrsbench(tmp_path)
    trained = {task: turns[0] for task, turns, _ in said(VRSBench(tmp_path))}
    assert parse_boxes(trained["refer/box"][1]) == [(19, 17, 100, 50)]
    assert trained["vqa/open"] == ("[vqa] is there a tank?", "Yes")
    annotated = {task: turns[0] for task, turns, _ in said(VRSBench(tmp_path, form="annotations"))}
    assert parse_boxes(annotated["refer/box"][1]) == [LEFT]
    assert annotated["vqa/count"] == ("[vqa] how many tanks are there?", "2")
    assert {task for task, _, _ in said(VRSBench(tmp_path, "val"))} == {"refer/unique", "caption/detailed", "vqa/count"}
    assert {task for task, _, _ in said(VRSBench(tmp_path, "val", "caption"))} == {"caption/detailed"}


def test_rsvqa_reads_answers_by_id_and_in_ranges(tmp_path: Path) -> None:
    layouts.rsvqa_lr(tmp_path)
    assert [(task, turns[0]) for task, turns, _ in said(RSVQALR(tmp_path))] == [
        ("vqa/presence", ("[vqa] is a road present?", "yes")), ("vqa/count", ("[vqa] what is the count?", "between 10 and 100")),
    ]  # fmt: skip
    assert [turns[0][1] for _, turns, _ in said(RSVQALR(tmp_path, ranges=False))] == ["yes", "12"]


def test_captions_keep_all_their_references(tmp_path: Path) -> None:
    layouts.ucm(tmp_path)
    train, test = (next(iter(UCMCaptions(tmp_path, split).records(Report())))["dialogues"] for split in ("train", "test"))  # type: ignore[arg-type]
    assert (len(train), len(test)) == (4, 1), "each different caption is learnt, one question is scored"
    assert [len(talk["references"]) for talk in train + test] == [5] * 5
    assert train[0]["turns"][0]["answer"] == "There are two storage tanks."
    assert train[0]["turns"][0]["prompt"].startswith("[caption] ")


def test_every_form_of_captions_gives_five_references(tmp_path: Path) -> None:
    for number, layout in enumerate((layouts.ucm, layouts.sydney, layouts.rsicd, layouts.nwpu)):
        record = next(iter(layout(tmp_path / str(number)).readers[0].records(Report())))
        answers = [talk["turns"][0]["answer"].removesuffix(".") for talk in record["dialogues"]]
        assert answers == ["There are two storage tanks", "Two white tanks are on the soil", "Two tanks", "A bare soil with two white tanks"]
        assert all(len(talk["references"]) == 5 for talk in record["dialogues"])


def test_earthreason_empties(tmp_path: Path) -> None:
    layouts.earthreason(tmp_path)
    talks = list(said(EarthReason(tmp_path)))
    assert [task for task, _, _ in talks] == ["segment/single"] * 2 + ["segment/absent"] * 4
    assert talks[0][1] == [("[segment] where could a pilot land?", "The long strip in the centre is a runway. It is [SEG].")]
    assert len(list(said(EarthReason(tmp_path, first_question=True)))) == 3


def test_geopixeld_names_its_masks(tmp_path: Path) -> None:
    layouts.geopixeld(tmp_path)
    record = next(iter(GeoPixelD(tmp_path).records(Report())))
    (talk,) = record["dialogues"]
    assert talk["task"] == "segment/grounded"
    assert talk["turns"][0]["answer"] == "It has storage tank-1 [SEG] and tank-2 [SEG]."
    assert [one["class"] for one in record["instances"]] == ["storage tank", None]


def test_a_crowd_is_part_of_groups_only(tmp_path: Path) -> None:
    layouts.coco(tmp_path)
    (record,) = COCO(tmp_path).records(Report())
    assert [one["distractor_only"] for one in record["instances"]] == [False, True, False, False]
    assert {talk["task"] for talk in record["dialogues"] if [2] in talk["targets"]} == {"segment/group"}


@pytest.mark.skipif(not FAIR.is_dir(), reason="the real buildings beside the project are absent")
def test_footprints_in_degrees_meet_masks_that_others_drew(tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    from geopix.rle import decode_rle

    shared = total = 0
    for labels, pattern, count in (("labels_region2.geojson", "images/kampala*.tif", 7), ("labels_region4.geojson", "images/catanduanes*.tif", 4)):
        records = list(GeoLabels(FAIR, Path(labels), pattern).records(Report()))
        assert len(records) == count
        for record in records:
            with Image.open(FAIR / "masks" / f"{record['key']}.png") as image:
                truth = np.asarray(image) > 0
            drawn = np.zeros_like(truth)
            for one in record["instances"]:
                drawn |= decode_rle(one["mask"]).numpy()
            shared, total = shared + (drawn & truth).sum(), total + (drawn | truth).sum()
    assert shared / total > 0.99


def test_questions_for_several_things_are_plural() -> None:
    instances = [{"id": number, "class": name} for number, name in enumerate(("building", "building", "ship"))]
    prompts = {turn["prompt"] for number in range(30) for talk in from_classes(instances, str(number)) for turn in talk["turns"]}
    assert {"[segment] where are all the buildings?", "[segment] where is the ship?"} <= prompts
    assert not [prompt for prompt in prompts if re.search(r"where is all|where are the ship\?", prompt)]


def test_pieces_of_a_picture_are_windows_of_its_file(tmp_path: Path) -> None:
    import numpy as np
    import rasterio

    root = tmp_path / "set"
    (_, tiled) = layouts.geolabels(root).readers
    with rasterio.open(root / "images" / "a.tif", "r+") as file:
        file.write(np.random.default_rng(0).integers(0, 255, (3, layouts.HEIGHT, layouts.WIDTH), dtype=np.uint8))
        whole, place = file.read(), file.transform
    before = sorted(root.rglob("*"))
    path = tmp_path / "records.jsonl"
    convert(tiled, path)
    records = InstructRecords(path, size=8)
    records.check()
    for index in range(len(records)):
        left, top, across, down = records.record(index)["window"]
        sample = records.sample(index, True)
        assert (across, down) == (8, 8)
        assert np.allclose(sample.image.numpy(), whole[:, top : top + 8, left : left + 8] / 255)
        assert sample.georeference is not None
        assert sample.georeference["transform"][2::3] == (place.c + 10 * left, place.f - 10 * top)
    assert len(records) == 6
    assert sorted(root.rglob("*")) == before, "nothing is copied"


def test_labels_with_a_wrong_crs_are_refused(tmp_path: Path) -> None:
    layouts.geolabels(tmp_path / "set")
    path = tmp_path / "set" / "labels.geojson"
    path.write_text(path.read_text().replace("[ 3", "[ 50000").replace("[3", "[50000"))
    with pytest.raises(ValueError, match=r"said to be in degrees .* Give their true CRS as labels_crs"):
        list(GeoLabels(tmp_path / "set", images="images/*.tif").records(Report()))


def test_null_classes_points_and_unused_names_are_told(tmp_path: Path) -> None:
    import geopandas
    import shapely

    layouts.geolabels(tmp_path)
    path = tmp_path / "labels.gpkg"
    shapes = geopandas.read_file(path).to_crs("EPSG:32636").geometry
    x, y = shapes[0].centroid.x, shapes[0].centroid.y
    line = shapely.LineString([(x, y), (x + 60, y)])
    shapes = [shapes[0], shapely.GeometryCollection([shapes[1], line]), line, shapely.Point(x, y), shapes[1].buffer(5)]
    labels = geopandas.GeoDataFrame({"kind": [1, 2, 2, 2, None]}, geometry=shapes, crs="EPSG:32636")
    for file, driver in (("labels.geojson", "GeoJSON"), ("labels.gpkg", "GPKG")):
        labels.to_crs("EPSG:4326").to_file(tmp_path / file, driver=driver)
        report = Report()
        (record,) = GeoLabels(tmp_path, Path(file), "images/*.tif", field="kind", classes={"1": "storage tank", "1.0": "x", "7": "y"}).records(report)
        assert [one["class"] for one in record["instances"]] == ["storage tank", "2", None]
        assert "all" not in str(record["dialogues"]), "an unknown class is no class that several have"
        assert (report.counts["label that is no polygon"], report.counts["label without a class"], report.counts["label outside all pictures"]) == (2, 1, 0)
        assert [entry["what"].split(" covers")[0] for entry in report.quarantine] == ["a LineString", "a Point"]
        (remark,) = report.remarks
        assert remark.startswith("classes names ['1.0', '7'], but the column 'kind' of")
        assert "holds ['1', '2']" in remark


def test_a_label_without_area_is_counted(tmp_path: Path) -> None:
    import geopandas
    import shapely

    layouts.geolabels(tmp_path)
    path = tmp_path / "labels.gpkg"
    labels = geopandas.read_file(path).to_crs("EPSG:32636")
    x, y = labels.geometry[1].centroid.x, labels.geometry[1].centroid.y
    labels.geometry = [labels.geometry[0], shapely.Polygon([(x, y), (x + 40, y), (x + 20, y)]), labels.geometry[2]]
    labels.to_file(path, driver="GPKG")
    report = Report()
    (record,) = GeoLabels(tmp_path, Path("labels.gpkg"), "images/*.tif").records(report)
    assert len(record["instances"]) == 1
    assert report.counts["label without area"] == 1
