"""Every public layout in miniature: 16 x 12 pictures and two masks, as their authors store them. One function per reader."""

import json
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import rasterio
import shapely
from PIL import Image

from geopix.data.sources.captions import RSICD, NWPUCaptions, SydneyCaptions, UCMCaptions
from geopix.data.sources.coco import COCO
from geopix.data.sources.conversations import LLaVAConversations
from geopix.data.sources.diorrsvg import DIORRSVG
from geopix.data.sources.earthreason import EarthReason
from geopix.data.sources.geochat import GeoChatBench, GeoChatInstruct
from geopix.data.sources.geolabels import GeoLabels
from geopix.data.sources.geopixeld import GeoPixelD
from geopix.data.sources.geopixinstruct import GeoPixInstruct
from geopix.data.sources.isaid import ISAID
from geopix.data.sources.loveda import LoveDA
from geopix.data.sources.reader import Reader
from geopix.data.sources.reasonseg import ReasonSeg
from geopix.data.sources.refsegrs import RefSegRS, RISBench
from geopix.data.sources.rrsisd import RRSISD
from geopix.data.sources.rsgpt import RSICap, RSIEval
from geopix.data.sources.rsvqa import RSVQAHR, RSVQALR
from geopix.data.sources.samrs import SAMRS
from geopix.data.sources.vrsbench import VRSBench

HEIGHT, WIDTH = 12, 16
LEFT, RIGHT, EMPTY = "V1480000000n2", "c3390000000005", "P6"
BACKSLASH = "01;00000000000\\3"
LEFT_BOX, RIGHT_BOX = [3, 2, 8, 6], [9, 7, 15, 10]


def boxed(*boxes: Sequence[int]) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    for x1, y1, x2, y2 in boxes:
        mask[y1:y2, x1:x2] = True
    return mask


LEFT_MASK, RIGHT_MASK = boxed(LEFT_BOX), boxed(RIGHT_BOX)
BOTH = LEFT_MASK | RIGHT_MASK


@dataclass
class Miniature:
    """A layout on disk.

    Args:
        readers: the readers of its parts.
        masks: for each of them, by key of the record, the mask of every ``[SEG]`` of its first dialogue that has any, in order.
        counts: what the reports of all readers together must count, at least.
        damage: files whose loss or damage must be told, by path from the root.
        exact: masks come back pixel by pixel.
    """

    readers: list[Reader]
    masks: list[dict[str, list[np.ndarray]]]
    counts: dict[str, int] = field(default_factory=dict)
    damage: list[str] = field(default_factory=list)
    exact: bool = True


def picture(path: Path, size: tuple[int, int] = (WIDTH, HEIGHT), mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.arange(size[0] * size[1] * 3, dtype=np.uint8).reshape(size[1], size[0], 3)
    Image.fromarray(values).convert(mode).save(path)
    return path


def write(path: Path, content: object) -> Path:
    """Text as it is, anything else as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((content if isinstance(content, str) else json.dumps(content)).encode("utf-8"))
    return path


def pickled(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=4))
    return path


def rle(counts: str) -> dict[str, Any]:
    return {"counts": counts, "size": [HEIGHT, WIDTH]}


def geopixinstruct(root: Path) -> Miniature:
    def row(stem: str, *instances: tuple[list[int], str, str]) -> dict[str, Any]:
        made = [
            {"bbox": box, "category": "storagetank", "category_id": 15, "description": text, "instance_id": f"{stem}_{number}", "mask": rle(counts)}
            for number, (box, text, counts) in enumerate(instances)
        ]
        return {"image_id": stem, "image_path": f"SIOR/images/{stem}.jpg", "instances": made}

    left, right = "The white storage tank on the left.", "The storage tank at the lower right."
    rows = [
        row("00007", (LEFT_BOX, left, LEFT), (RIGHT_BOX, right, RIGHT)),
        row("00008", ([0, 0, 7, 1], "The pier.", BACKSLASH), ([1, 1, 2, 2], "Nothing.", EMPTY)),
    ]
    (root / "data").mkdir(parents=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), root / "data" / "train.SIOR_T-00000-of-00001.parquet")
    wide = [row("P0007_0001", ([3, 2, 5, 4], left, LEFT), ([9, 7, 6, 3], left, RIGHT))]
    parquet.write_table(pyarrow.Table.from_pylist(wide), root / "data" / "valid.SOTA_T-00000-of-00001.parquet")
    picture(root / "samrs" / "dior" / "JPEGImages-trainval" / "00007.jpg")
    picture(root / "samrs" / "SIOR" / "images" / "00008.jpg")
    picture(root / "samrs" / "dotav2_1024" / "trainval" / "images" / "P0007_0001.png")
    return Miniature(
        [GeoPixInstruct(root, root / "samrs", subset="SIOR"), GeoPixInstruct(root, root / "samrs", "valid", "SOTA")],
        [{"00007": [LEFT_MASK], "00008": [boxed([0, 0, 7, 1])]}, {"P0007_0001": [BOTH]}],
        {"empty mask": 1, "description of several instances": 1, "picture found in SAMRS's folders": 2, "picture found as given": 1},
        ["data/train.SIOR_T-00000-of-00001.parquet", "samrs/dior/JPEGImages-trainval/00007.jpg"],
    )


def samrs(root: Path) -> Miniature:
    box, rotated = np.array(LEFT_BOX, dtype=np.float32), np.array([[9, 7], [15, 7], [15, 10], [9, 10]], dtype=np.float64)
    ship = {"mask": rle(LEFT), "bbox": box, "category": "ship", "label": 13, "size": np.int64(20)}
    beyond = {"mask": rle(EMPTY), "bbox": np.array([14.5, 10.0, 16.4, 12.3], dtype=np.float32), "category": "ship", "label": 13, "size": np.int64(0)}
    old = {"mask": rle(RIGHT), "bbox": np.array(RIGHT_BOX, dtype=np.float32), "category": 15, "size": np.int64(18)}
    pickled(root / "dior" / "hbox_segs_trainvaltest_init" / "ins" / "00007.pkl", [ship, beyond, old])
    picture(root / "dior" / "JPEGImages-trainval" / "00007.jpg")
    picture(root / "dior" / "JPEGImages-test" / "11726.jpg")
    write(root / "dior" / "train.txt", "00007\n11726\n")
    write(root / "dior" / "valid.txt", "11726\n")
    car = {"mask": rle(RIGHT), "rbox": rotated, "rhbox": [9.0, 7.0, 15.0, 10.0], "category": "Small-Car", "label": 29, "size": np.int64(18)}
    fast, sota = root / "fair1m_1024" / "trainval", root / "dotav2_1024" / "trainval"
    pickled(fast / "rhbox_segs_init" / "ins" / "train_5007_0017.pkl", [car])
    picture(fast / "images" / "train_5007_0017.png")
    write(fast / "train.txt", "train_5007_0017\n")
    pickled(sota / "hbox_segs_init" / "ins" / "P0000_0001.pkl", [ship | {"label": 5}, ship | {"mask": rle(RIGHT), "bbox": np.array(RIGHT_BOX), "label": 5}])
    picture(sota / "images" / "P0000_0001.png")
    write(sota / "valid.txt", "P0000_0001\r\n\r\n")
    return Miniature(
        [SAMRS(root), SAMRS(root, "FAST"), SAMRS(root, "SOTA", "valid")],
        [{"00007": [LEFT_MASK]}, {"train_5007_0017": [RIGHT_MASK]}, {"P0000_0001": [BOTH]}],
        {"empty mask": 1, "picture without labels": 1, "picture in two splits": 1},
        ["dior/hbox_segs_trainvaltest_init/ins/00007.pkl", "dior/JPEGImages-trainval/00007.jpg"],
    )


def rrsisd(root: Path) -> Miniature:
    refs, images, annotations = [], [], []
    for number, split, counts, box in (
        (7, "train", LEFT, LEFT_BOX),
        (8, "train", RIGHT, RIGHT_BOX),
        (9, "val", LEFT, LEFT_BOX),
        (10, "test", RIGHT, RIGHT_BOX),
    ):
        name, raw = f"{number:05d}.jpg", "The white storage tank on the left"
        refs.append(
            {"image_id": number, "split": split, "sentences": [{"tokens": raw.split(), "raw": raw, "sent_id": number, "sent": raw}], "file_name": name,
             "category_id": 15, "ann_id": number, "sent_ids": [number], "ref_id": number}
        )  # fmt: skip
        images.append({"file_name": name, "height": HEIGHT, "width": WIDTH, "id": number})
        annotations.append({"bbox": box, "categories_id": 15, "id": number, "image_id": number, "segmentation": [rle(counts)], "area": 5100})
    pickled(root / "rrsisd" / "refs(unc).p", refs)
    write(root / "rrsisd" / "instances.json", {"images": images, "annotations": annotations, "categories": [{"name": "storagetank", "id": 15}]})
    folder = root / "images" / "rrsisd" / "JPEGImages"
    picture(folder / "00007.jpg")
    picture(folder / "00009.jpg", (WIDTH, HEIGHT + 1))
    picture(folder / "00010.jpg")
    return Miniature(
        [RRSISD(root), RRSISD(root, "val"), RRSISD(root, "test")],
        [{"00007": [LEFT_MASK]}, {}, {"00010": [RIGHT_MASK]}],
        {"missing picture": 1, "mask of another size than its picture": 1, "count differs from the publication": 3},
        ["rrsisd/refs(unc).p", "rrsisd/instances.json", "images/rrsisd/JPEGImages/00007.jpg"],
    )


def _rsvqa(root: Path, folder: str, prefix: str, kind: str, answer: str) -> None:
    dated = {"date_added": 1571000000.5, "people_id": 0}
    images = [
        dated | {"id": 0, "original_name": "S2A_x.tif", "sensor": "x", "upperleft_map_x": 4.0, "type": "Visible", "questions_ids": [0, 2], "active": True},
        {"id": 1, "active": False},
        dated | {"id": 2, "questions_ids": [3], "active": True},
    ]
    questions = [
        dated | {"id": 0, "img_id": 0, "type": "presence", "question": "Is a road present?", "answers_ids": [0], "active": True},
        {"id": 1, "active": False},
        dated | {"id": 2, "img_id": 0, "type": kind, "question": f"What is the {kind}?", "answers_ids": [2], "active": True},
        dated | {"id": 3, "img_id": 2, "type": "comp", "question": "Are there more roads than houses?", "answers_ids": [3], "active": True},
    ]
    answers = [
        dated | {"id": 0, "question_id": 0, "answer": "yes", "active": True},
        {"id": 1, "active": False},
        dated | {"id": 2, "question_id": 2, "answer": answer, "active": True},
    ]
    for part, entries in (("images", images), ("questions", questions), ("answers", answers)):
        write(root / f"{prefix}_{part}.json", {part: entries})
    picture(root / folder / "0.tif")
    picture(root / folder / "2.tif")


def rsvqa_lr(root: Path) -> Miniature:
    _rsvqa(root, "Images_LR", "LR_split_train", "count", "12")
    counts = {"question without an answer": 1, "picture without usable questions": 1}
    return Miniature([RSVQALR(root)], [{}], counts, ["LR_split_train_questions.json", "Images_LR/0.tif"])


def rsvqa_hr(root: Path) -> Miniature:
    _rsvqa(root, "Data", "USGS_split_test_phili", "area", "123m2")
    return Miniature([RSVQAHR(root, "test_phili")], [{}], {"question without an answer": 1}, ["USGS_split_test_phili_answers.json", "Data/0.tif"])


SAID = ["There are two storage tanks .", "Two white tanks are on the soil .", "Two tanks .", "Two tanks .", "A bare soil with two white tanks ."]


def _karpathy(path: Path, name: str, files: Sequence[str]) -> None:
    sentences = [{"tokens": raw[:-2].split(), "raw": raw, "imgid": 0, "sentid": number} for number, raw in enumerate(SAID)]
    splits = ("train", "val", "test")
    images = [{"sentids": [0, 1, 2, 3, 4], "imgid": 0, "split": splits[n], "filename": file, "sentences": sentences} for n, file in enumerate(files)]
    write(path, {"images": images, "dataset": name})


def ucm(root: Path) -> Miniature:
    _karpathy(root / "dataset.json", "UCM", ["1.tif", "2.tif", "3.tif"])
    picture(root / "imgs" / "1.tif")
    picture(root / "imgs" / "3.tif")
    counts = {"picture with a caption repeated": 2, "missing picture": 1, "count differs from the publication": 3}
    return Miniature([UCMCaptions(root), UCMCaptions(root, "val"), UCMCaptions(root, "test")], [{}, {}, {}], counts, ["dataset.json", "imgs/1.tif"])


def sydney(root: Path) -> Miniature:
    write(root / "filenames" / "descriptions_SYDNEY.txt", "\r\n".join(f"1 {text[:-2]}" for text in SAID))
    write(root / "filenames" / "filenames_train.txt", "1.tif\r\n")
    picture(root / "imgs" / "1.tif")
    return Miniature([SydneyCaptions(root)], [{}], {"picture with a caption repeated": 1}, ["imgs/1.tif"])


def rsicd(root: Path) -> Miniature:
    _karpathy(root / "dataset_rsicd.json", "RSICD", ["airport_1.jpg"])
    picture(root / "RSICD_images" / "airport_1.jpg")
    return Miniature([RSICD(root)], [{}], {"picture with a caption repeated": 1}, ["dataset_rsicd.json", "RSICD_images/airport_1.jpg"])


def nwpu(root: Path) -> Miniature:
    raws = {"raw" if not number else f"raw_{number}": text for number, text in enumerate(SAID)}
    entry = {"filename": "airport_001.jpg", "imgid": 0, "split": "train", "sentids": 0, "sentids_1": 1} | raws
    write(root / "dataset_nwpu.json", {"airport": [entry]})
    picture(root / "NWPU_images" / "airport" / "airport_001.jpg")
    return Miniature([NWPUCaptions(root)], [{}], {"picture with a caption repeated": 1}, ["dataset_nwpu.json", "NWPU_images/airport/airport_001.jpg"])


POLYGON = [[3, 2, 8, 2, 8, 6, 3, 6]]
RUNS = [115, 3, 9, 3, 9, 3, 9, 3, 9, 3, 9, 3, 14]


def coco_of(file_name: str) -> dict[str, Any]:
    return {
        "info": {"description": "made by a test"},
        "licenses": [{"id": 7, "name": "CC0"}],
        "images": [{"id": 1, "file_name": file_name, "height": 12, "width": 16, "license": 7}],
        "categories": [{"id": 1, "name": "tank"}, {"id": 2, "name": "crowd"}, {"id": 3, "name": "pier"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [3, 2, 5, 4], "area": 20, "iscrowd": 0, "segmentation": POLYGON},
            {"id": 2, "image_id": 1, "category_id": 2, "bbox": [9, 7, 6, 3], "area": 18, "iscrowd": 1, "segmentation": rle(LEFT) | {"counts": RUNS}},
            {"id": 3, "image_id": 1, "category_id": 1, "bbox": [9, 7, 6, 3], "area": 18, "iscrowd": 0, "segmentation": rle(RIGHT)},
            {"id": 4, "image_id": 1, "category_id": 3, "bbox": [0, 0, 7, 1], "area": 7, "iscrowd": 0, "segmentation": [rle(BACKSLASH)]},
            {"id": 5, "image_id": 1, "category_id": 3, "bbox": [0, 0, 7, 1], "area": 7, "iscrowd": 0, "segmentation": {"size": [16, 12], "counts": LEFT}},
            {"id": 6, "image_id": 1, "category_id": 3, "bbox": [0, 0, 7, 1], "area": 7, "iscrowd": 0, "segmentation": rle("V148")},
        ],
    }


def coco(root: Path) -> Miniature:
    write(root / "annotations.json", coco_of("a.png"))
    picture(root / "a.png")
    counts = {"mask of another size than its picture": 1, "mask that does not decode": 1}
    return Miniature([COCO(root)], [{"a": [BOTH]}], counts, ["annotations.json", "a.png"], exact=False)


def grey(path: Path, mask: np.ndarray, value: int = 255, channels: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = mask.astype(np.uint8) * value
    Image.fromarray(values if channels == 1 else np.stack([values] * channels, axis=2)).save(path)
    return path


def refsegrs(root: Path) -> Miniature:
    write(root / "output_phrase_train.txt", "0 car\r\n1 light-duty vehicle driving on the road\r\n\r\n2 building with a parking lot")
    for number, (mask, value, channels) in enumerate(((BOTH, 255, 3), (LEFT_MASK, 1, 1), (np.zeros_like(BOTH), 255, 3))):
        picture(root / "images" / f"{number}.tif")
        grey(root / "masks" / f"{number}.tif", mask, value, channels)
    counts = {"empty mask": 1, "count differs from the publication": 1}
    return Miniature([RefSegRS(root)], [{"0": [BOTH], "1": [LEFT_MASK]}], counts, ["output_phrase_train.txt", "images/0.tif", "masks/0.tif"])


def risbench(root: Path) -> Miniature:
    write(
        root / "output_phrase_train.txt", "P0007_0001_3.png the white storage tank on the left\n09194_0000_1.png the ship, the smallest one, near the harbor\n"
    )
    write(root / "output_phrase_val.txt", "09194_0000_1.png the ship\n")
    for stem, mask in (("P0007_0001_3", LEFT_MASK), ("09194_0000_1", RIGHT_MASK)):
        picture(root / "img_rgb" / f"{stem}.png")
        grey(root / "mask" / f"{stem}.tif", mask)
    counts = {"picture in two splits": 1, "picture found under another ending": 2}
    masks = {"P0007_0001_3": [LEFT_MASK], "09194_0000_1": [RIGHT_MASK]}
    return Miniature([RISBench(root)], [masks], counts, ["output_phrase_train.txt", "img_rgb/P0007_0001_3.png", "mask/P0007_0001_3.tif"])


def earthreason(root: Path) -> Miniature:
    for stem, answer, mask in (("a", ["The long strip in the centre is a runway."], BOTH), ("b", [], ~BOTH & BOTH), ("c", ["A dock."], ~BOTH & BOTH)):
        picture(root / "train" / "images" / f"{stem}.jpg")
        grey(root / "train" / "labels" / f"{stem}.png", mask, 1)
        write(root / "train" / "QAs" / f"{stem}.json", {"questions": ["Where could a pilot land?", "Which surface is a strip?"], "answer": answer})
    counts = {"empty target": 2, "empty answer and mask disagree": 1}
    return Miniature([EarthReason(root)], [{"a": [BOTH]}], counts, ["train/QAs/a.json", "train/images/a.jpg", "train/labels/a.png"])


def diorrsvg(root: Path) -> Miniature:
    for stem in ("00008", "00007"):  # written in reverse order: numbers count by name
        things = "".join(
            f"<object><name>storagetank</name><pose>Unspecified</pose><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax>"
            f"<ymax>{box[3]}</ymax></bndbox><description>A tank on the {side} of {stem}</description></object>"
            for side, box in (("left", LEFT_BOX), ("right", [9, 7, 18, 10]))
        )
        write(root / "Annotations" / f"{stem}.xml", f"<annotation><filename>{stem}.jpg</filename>{things}</annotation>")
        picture(root / "JPEGImages" / f"{stem}.jpg")
    for split, numbers in (("train", "0\n3\n"), ("val", "1\n"), ("test", "2\n")):
        write(root / f"{split}.txt", numbers)
    readers: list[Reader] = [DIORRSVG(root), DIORRSVG(root, "val"), DIORRSVG(root, "test")]
    return Miniature(readers, [{}, {}, {}], {"box beyond the picture": 2}, ["Annotations/00007.xml", "JPEGImages/00007.jpg"])


def talk(*turns: str, answerer: str = "gpt") -> list[dict[str, str]]:
    return [{"from": answerer if number % 2 else "human", "value": text} for number, text in enumerate(turns)]


def vrsbench(root: Path) -> Miniature:
    name, corner = "P0007_0001.png", [0.19, 0.17, 0.5, 0.17, 0.5, 0.5, 0.19, 0.5]
    thing = {
        "obj_id": 0,
        "obj_cls": "storage-tank",
        "referring_sentence": "The white tank on the left.",
        "obj_corner": corner,
        "obj_coord": [0.19, 0.17, 0.5, 0.5],
    }
    asked = [{"ques_id": "Q6", "question": "How many tanks are there?", "type": "object quantity", "answer": "2"}, {"ques_id": 0, "question": "", "answer": ""}]
    whole = {"image": name, "caption": "Two storage tanks on bare soil.", "objects": [thing, thing | {"referring_sentence": ""}], "qa_pairs": asked}
    write(root / "Annotations_train" / "P0007_0001.json", whole)
    write(root / "Annotations_train" / "P0008_0001.json", '{"image": "P0008_0001.png", "caption": "a "quoted" word"}')
    picture(root / "Images_train" / "Images_train" / name)
    picture(root / "Images_val" / name)
    refer = "<image>\n[refer] could you tell me the location for <p>The white tank on the left</p>?"
    trained = [
        {"id": "7", "image": name, "conversations": talk(refer, "{<19><17><154><50>}")},
        {"id": "8", "image": name, "conversations": talk("<image>\n[caption] Could you describe the contents?", "Two tanks.")},
        {"id": "9", "image": name, "conversations": talk("<image>\n[vqa] Is there a tank? A short answer to the question is", "Yes")},
        {"id": "9", "image": name, "conversations": talk("<image>\n[vqa] Is there a tank? A short answer to the question is", "Yes")},
    ]
    write(root / "VRSBench_train.json", trained)
    base = {"image_id": name, "dataset": "RSBench", "question_id": 0}
    write(root / "VRSBench_EVAL_referring.json", [base | {"question": "The white tank.", "ground_truth": "{<19><17><50><50>}", "type": "ref", "unique": True}])
    write(root / "RSBench_EVAL_Cap.json", [base | {"question": "Describe the image in detail", "ground_truth": "Two tanks.", "type": "caption"}])
    write(root / "VRSBench_EVAL_vqa.json", [base | {"question": "How many?", "ground_truth": "2", "type": "object quantity"}])
    readers: list[Reader] = [VRSBench(root), VRSBench(root, "val"), VRSBench(root, form="annotations"), VRSBench(root, task="refer")]
    counts = {"box beyond the picture": 2, "damaged record": 1, "duplicate text": 2, "object without an expression": 1, "empty text": 1}
    return Miniature(readers, [{}, {}, {}, {}], counts, ["VRSBench_train.json", "Images_train/Images_train/P0007_0001.png"])


def geochat_instruct(root: Path) -> Miniature:
    boxes = "{<19><17><50><50>|<0>}{<56><58><94><83>|<45>}{<0><0><981><10>|<0>}"
    turns = talk(
        "<image>\n[refer] where is <p>1 white storage tank at the left</p> ?", "{<19><17><50><50>|<0>}",
        "[identify] the object in {<56><58><94><83>|<12>} is", "<p>1 storage tank at the right</p>",
        "[grounding] describe the image in detail", f"There are <p>3 storage tanks</p> {boxes} on the site.",
        "Is it a city?", "No.", "Why not?", "There are fields.",
    )  # fmt: skip
    document = [{"id": "a", "image": "a.tif", "conversations": turns}, {"id": 2, "image": "a.tif", "conversations": talk("[refer] where?", "nowhere")}]
    write(root / "GeoChat_Instruct.json", [*document, {"id": 3, "conversations": talk("Hello", "Hello")}])
    picture(root / "share/softwares/kartik/GeoChat_finetuning/final_images_llava/a.png")
    counts = {"answer without a box": 1, "picture found under another ending": 1, "record without a picture": 1}
    damage = ["GeoChat_Instruct.json", "share/softwares/kartik/GeoChat_finetuning/final_images_llava/a.png"]
    return Miniature([GeoChatInstruct(root)], [{}], counts, damage)


def geochat_bench(root: Path) -> Miniature:
    truth = [[[3, 2], [8, 2], [8, 6], [3, 6]], [[9, 7], [15, 7], [15, 10], [9, 10]]]
    lines = {
        "referring": [{"question_id": "fast_1", "image_id": "train_5007_0017", "ground_truth": truth, "question": "2 tanks at the left", "type": "ref"}],
        "region_captioning": [{"image_id": "train_5007_0017", "question": "{<19><17><50><50>|<0>}", "ground_truth": "<p>1 tank</p>"}],
        "grounding_description": [{"image_id": "train_5007_0017.png", "description": "Two tanks."}],
        "lrben": [{"question_id": n, "image": "41.tif", "text": "Is there a road?\nAnswer in one word.", "category": "presence"} for n in (0, 7)],
        "aid": [
            {"question_id": "Airport/airport_1", "image": "airport_1.jpg", "text": "Classify the image. Classes: Airport.\nOne word.", "ground_truth": "x"}
        ],
    }
    for name, entries in lines.items():
        write(root / f"{name}.jsonl", "\n".join(json.dumps(entry) for entry in entries) + "\n")
    write(root / "all_answers.json", {"answers": [{"id": 0, "question_id": 0, "answer": "yes", "active": True}]})
    for name in ("train_5007_0017.png", "41.tif", "airport_1.jpg"):
        picture(root / "images" / name)
    parts = ("referring", "region_captioning", "grounding_description", "lrben", "aid")
    readers: list[Reader] = [GeoChatBench(root, part) for part in parts]
    return Miniature(readers, [{}] * len(parts), {"question without an answer": 1}, ["referring.jsonl", "images/train_5007_0017.png"])


def geopixeld(root: Path) -> Miniature:
    rings = [[[[3, 2], [8, 2], [8, 6], [3, 6]]], [[[9, 7], [15, 7], [15, 10], [9, 10]]]]
    said = talk("Describe the image with interleaved masks.", "It has <p> storage tank-1 </p> [SEG] and <p> tank-2 </p> [SEG] .", answerer="bot")
    entry = {"id": 0, "image": "data/train/images/P0007_0_800_600_1400.png", "polygons": "data/train/polygons/P0007_0_800_600_1400.json", "conversations": said}
    other = {"id": 1, "image": "data/train/images/P0008.png", "segmentation": [rle(LEFT), rle(RIGHT)], "conversations": said}
    write(root / "train.json", [entry, other, entry | {"conversations": talk("Describe it.", "One [SEG].", answerer="bot")}])
    write(root / entry["polygons"], {"id": 0, "img": "P0007_0_800_600_1400.png", "polygons": rings})
    picture(root / entry["image"])
    picture(root / other["image"])
    masks = {"P0007_0_800_600_1400": [LEFT_MASK, RIGHT_MASK], "P0008": [LEFT_MASK, RIGHT_MASK]}
    damage = ["train.json", entry["polygons"], entry["image"]]
    return Miniature([GeoPixelD(root)], [masks], {"masks and [SEG] differ in number": 1}, damage, exact=False)


def llava(root: Path) -> Miniature:
    document = [
        {"id": "7", "image": "a.png", "conversations": talk("<image>\nWhat is in the picture?", "Two tanks.", "Which colour?", "White.")},
        {"id": "7", "image": "a.png", "conversations": talk("Describe it.\n<image>", "A bare soil.")},
        {"id": 8, "image": "b.png", "conversations": talk("<image>\nSegment the tank.", "It is [SEG].")},
        {"id": 9, "conversations": talk("Hello", "Hello")},
    ]
    write(root / "annotations.json", document)
    picture(root / "a.png")
    picture(root / "b.png")
    counts = {"answer with [SEG] but no mask": 1, "record without a picture": 1}
    return Miniature([LLaVAConversations(root)], [{}], counts, ["annotations.json", "a.png"])


def reasonseg(root: Path) -> Miniature:
    shapes = [{"label": "target", "points": [[3, 2], [7, 2], [7, 5], [3, 5]]}, {"label": "ignore", "points": [[9, 7], [14, 7], [14, 9], [9, 9]]}]
    write(root / "train" / "a.json", {"text": ["the place where one can land"], "is_sentence": False, "shapes": shapes})
    (root / "train" / "b.json").write_bytes(
        json.dumps({"text": ["Where is the cafe?"], "is_sentence": True, "shapes": shapes}).replace("cafe", "caf\xe9").encode("cp1252")
    )
    picture(root / "train" / "a.jpg")
    picture(root / "train" / "b.jpg")
    counts = {"picture with pixels to be ignored": 2, "text that is not UTF-8, read as cp1252": 1}
    return Miniature([ReasonSeg(root)], [{"a": [LEFT_MASK], "b": [LEFT_MASK]}], counts, ["train/a.json", "train/a.jpg"])


def rsicap(root: Path) -> Miniature:
    entry = {"image_id": "0", "filename": "P0007_0001.png", "text_input": "Describe this image in detail.", "text_output": "It shows two storage tanks."}
    write(root / "captions.json", {"annotations": [entry]})
    picture(root / "images" / "P0007_0001.png")
    return Miniature([RSICap(root)], [{}], {"count differs from the publication": 1}, ["captions.json", "images/P0007_0001.png"])


def rsieval(root: Path) -> Miniature:
    pairs = [{"question": "How many tanks are there?", "answer": "Two.", "type": "quantity"}, {"question": "Why?", "answer": " ", "type": "reasoning"}]
    write(root / "annotations.json", {"annotations": [{"filename": "P0007_0001.png", "caption": "Two storage tanks.", "qa_pairs": pairs}]})
    picture(root / "images" / "P0007_0001.png")
    return Miniature([RSIEval(root)], [{}], {"question without an answer": 1}, ["annotations.json", "images/P0007_0001.png"])


def isaid(root: Path) -> Miniature:
    patch = "P0002_0_800_0_800.png"
    document = coco_of(patch)
    document["categories"] = [{"id": 1, "name": "storage_tank"}, {"id": 2, "name": "Large_Vehicle"}, {"id": 3, "name": "Harbor"}]
    write(root / "train" / "instancesonly_filtered_train.json", document)
    picture(root / "train" / "images" / patch)
    picture(root / "val" / "images" / "P0003.png")
    ids, colours = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8), np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    ids[LEFT_MASK], ids[RIGHT_MASK], colours[BOTH] = (5, 1, 0), (0, 0, 9), (0, 63, 63)
    for part, values in (("id", ids), ("color", colours)):
        Image.fromarray(values).save(root / "val" / "images" / f"P0003_instance_{part}_RGB.png")
    masks = [{"P0002_0_800_0_800": [BOTH]}, {"P0003": [BOTH]}]
    damage = ["train/instancesonly_filtered_train.json", f"train/images/{patch}"]
    return Miniature([ISAID(root), ISAID(root, "val")], masks, {"mask that does not decode": 1}, damage, exact=False)


def loveda(root: Path) -> Miniature:
    for domain, number, base in (("Urban", 1366, 1), ("Rural", 0, 0)):
        values = np.where(LEFT_MASK, 4, np.where(RIGHT_MASK, 2, base)).astype(np.uint8)
        picture(root / "Train" / domain / "images_png" / f"{number}.png")
        (root / "Train" / domain / "masks_png").mkdir()
        Image.fromarray(values).save(root / "Train" / domain / "masks_png" / f"{number}.png")
    masks = {"1366": [RIGHT_MASK], "0": [RIGHT_MASK]}
    damage = ["Train/Urban/images_png/1366.png", "Train/Urban/masks_png/1366.png"]
    return Miniature([LoveDA(root)], [masks], {"picture with pixels of no data": 1}, damage)


def geolabels(root: Path) -> Miniature:
    """A picture of 10 m pixels in UTM zone 36N; labels in degrees, one of them half beyond the edge, one elsewhere."""
    transform = rasterio.transform.from_origin(500_000, 100_000, 10, 10)
    (root / "images").mkdir(parents=True)
    profile = {"driver": "GTiff", "height": HEIGHT, "width": WIDTH, "count": 3, "dtype": "uint8", "crs": "EPSG:32636", "transform": transform}
    with rasterio.open(root / "images" / "a.tif", "w", **profile) as file:
        file.write(np.full((3, HEIGHT, WIDTH), 90, dtype=np.uint8))
    boxes = [LEFT_BOX, RIGHT_BOX, [100, 100, 110, 110]]
    shapes = [shapely.box(*(transform * (box[0], box[3])), *(transform * (box[2], box[1]))) for box in boxes]
    labels = geopandas.GeoDataFrame({"kind": ["Storage_Tank", "pier", "pier"]}, geometry=shapes, crs="EPSG:32636").to_crs("EPSG:4326")
    labels.to_file(root / "labels.geojson", driver="GeoJSON")
    labels.to_crs("EPSG:3857").to_file(root / "labels.gpkg", driver="GPKG")
    tiled = GeoLabels(root, Path("labels.gpkg"), "images/*.tif", tile=8, overlap=2)
    masks = [{"a": [LEFT_MASK]}, {f"a_{top}_{left}": [BOTH[top : top + 8, left : left + 8]] for top in (0, 4) for left in (0, 6, 8)}]
    readers: list[Reader] = [GeoLabels(root, images="images/*.tif", field="kind"), tiled]
    return Miniature(readers, masks, {"label outside all pictures": 2}, ["labels.geojson", "images/a.tif"])


LAYOUTS: dict[type[Reader], Callable[[Path], Miniature]] = {
    GeoPixInstruct: geopixinstruct, SAMRS: samrs, RRSISD: rrsisd, RSVQALR: rsvqa_lr, RSVQAHR: rsvqa_hr, UCMCaptions: ucm, SydneyCaptions: sydney,
    RSICD: rsicd, NWPUCaptions: nwpu, COCO: coco, RefSegRS: refsegrs, RISBench: risbench, EarthReason: earthreason, DIORRSVG: diorrsvg,
    VRSBench: vrsbench, GeoChatInstruct: geochat_instruct, GeoChatBench: geochat_bench, GeoPixelD: geopixeld, LLaVAConversations: llava,
    ReasonSeg: reasonseg, RSICap: rsicap, RSIEval: rsieval, ISAID: isaid, LoveDA: loveda, GeoLabels: geolabels,
}  # fmt: skip
