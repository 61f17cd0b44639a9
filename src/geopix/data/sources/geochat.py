"""GeoChat-Instruct, in LLaVA's form with tags and boxes, and the files of GeoChat-Bench."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from geopix.data.records import Record, dialogue
from geopix.data.sources.conversations import conversation_records, locate, plain
from geopix.data.sources.files import first_of, grouped, read_json, read_json_lines
from geopix.data.sources.pieces import Picture, box_of, expression, open_picture, percent, record_of
from geopix.data.sources.reader import About, Reader, Report
from geopix.data.sources.wording import Talk, captions, located, question

_PICTURES = ("share/softwares/kartik/GeoChat_finetuning/final_images_llava", "final_images_llava", "images", ".")
_DOMAIN = "pictures under the terms of DOTA, DIOR, FAIR1M, RSVQA, NWPU, FloodNet and others"


@dataclass(frozen=True)
class GeoChatInstruct(Reader):
    """Tagged turns become dialogues of their task; boxes are made upright, and numbers beyond 100 cut off.

    Layout: ``GeoChat_Instruct.json``; pictures in ``share/softwares/kartik/GeoChat_finetuning/final_images_llava/``, as ``images.zip``
    unpacks, or in ``images/``.

    Args:
        root: the folder that holds them.
        split: what the records are told to be part of.
    """

    root: Path
    split: str | None = "train"

    about = About(
        name="GeoChat-Instruct",
        publication="arXiv 2311.15826; MBZUAI/GeoChat_Instruct",
        licence=f"Apache-2.0; {_DOMAIN}",
        protocol="training only; see GeoChat-Bench",
        uncertain=(
            "The sense of a box's angle conflicts within the authors' code; the upright box around it, which is read here, is the same for both.",
            "About 318 thousand records are published; the exact number is not stated.",
        ),
    )

    def records(self, report: Report) -> Iterator[Record]:
        """See :class:`geopix.data.sources.reader.Reader`."""
        document = read_json(first_of(self.root, ["GeoChat_Instruct.json"], self.about.name), report)
        folders = [folder for name in _PICTURES if (folder := self.root / name).is_dir()]
        yield from conversation_records(self.about, document, folders, self.split, report)


Part = Literal["referring", "region_captioning", "grounding_description", "lrben", "hrben", "aid", "UCmerced"]


@dataclass(frozen=True)
class GeoChatBench(Reader):
    """One file of GeoChat-Bench.

    Layout: ``PART.jsonl``; pictures in ``images`` (RSVQA's, AID's and UC Merced's own folders for those parts). The RSVQA parts hold no answers: they are
    taken from RSVQA's ``all_answers.json`` (LR) or ``USGSanswers.json`` (HR) by the question's number.

    Args:
        root: the folder that holds the file.
        part: referring, region_captioning, grounding_description, lrben, hrben, aid or UCmerced.
        images: folder of the pictures; ``root`` unless given.
        answers: RSVQA's answers, for lrben and hrben; from ``root`` unless absolute.
        split: what the records are told to be part of.
    """

    root: Path
    part: Part = "referring"
    images: Path | None = None
    answers: Path | None = None
    split: str | None = "test"

    about = About(
        name="GeoChat-Bench",
        publication="arXiv 2311.15826; MBZUAI/GeoChat-Bench",
        licence=f"Apache-2.0; {_DOMAIN}",
        protocol="scenes: accuracy by class; questions: exact match in lower case, mean over the kinds; boxes: Acc@0.5; captions: ROUGE-L, METEOR",
        uncertain=(
            "The authors' script for the referring part was not released; polygons are read as the upright boxes around them.",
            "One truth of the scene part holds a typing error (MediumResidentialgt); the class in the question's number is used.",
        ),
    )

    def records(self, report: Report) -> Iterator[Record]:
        """See :class:`geopix.data.sources.reader.Reader`."""
        path = first_of(self.root, [f"{self.part}.jsonl"], self.about.name)
        entries = [entry for _, entry in read_json_lines(path, report)]
        folders = [folder for folder in (self.images or self.root, (self.images or self.root) / "images") if folder.is_dir()] or [self.root]
        talk = self._speaker(report)
        for name, members in grouped(entries, _picture_of).items():
            if not name:
                report.leave_out("damaged record", path.name, f"{len(members)} entries name no picture: {str(members[0])[:80]}")
                continue
            picture = open_picture(locate(name, folders, report), report, name)
            if picture is None:
                continue
            talks = [said for entry in members if (said := talk(entry, picture)) is not None]
            if talks:
                yield record_of(self.about, picture, Path(name).stem, self.split, talks)

    def _speaker(self, report: Report) -> Callable[[dict[str, Any], Picture], Talk | None]:
        if self.part == "referring":
            return lambda entry, picture: _referred(entry, picture, report)
        if self.part == "region_captioning":
            return lambda entry, picture: dialogue(
                "caption/region",
                [(f"[caption] what is in {plain(str(entry['question']), picture, report)}?", plain(str(entry["ground_truth"]), picture, report))],
            )
        if self.part == "grounding_description":
            return lambda entry, picture: captions([plain(str(entry["description"]), picture, report)], picture.where, each=False, kind="detailed")[0]
        if self.part in ("aid", "UCmerced"):
            return lambda entry, picture: question("scene", _question(entry), str(entry["question_id"]).split("/")[0])
        answers = self._answers(report)
        return lambda entry, picture: _answered(entry, answers, picture, report)

    def _answers(self, report: Report) -> dict[int, str]:
        names = [str(self.answers)] if self.answers is not None else ["all_answers.json" if self.part == "lrben" else "USGSanswers.json"]
        document = read_json(first_of(self.root, names, f"{self.about.name} {self.part} (RSVQA's answers)"), report, dict)
        return {int(entry["question_id"]): str(entry["answer"]) for entry in document["answers"] if "answer" in entry and "question_id" in entry}


def _picture_of(entry: dict[str, Any]) -> str:
    name = str(entry.get("image", entry.get("image_id", "")))
    return name if not name or Path(name).suffix else f"{name}.png"


def _question(entry: dict[str, Any]) -> str:
    return str(entry["text"]).split("\n")[0]


def _referred(entry: dict[str, Any], picture: Picture, report: Report) -> Talk | None:
    boxes = []
    for polygon in entry.get("ground_truth", []):
        xs, ys = [float(point[0]) for point in polygon], [float(point[1]) for point in polygon]
        if (box := box_of((min(xs), min(ys), max(xs), max(ys)), picture, report)) is not None:
            boxes.append(percent(box, picture))
    text = expression(entry.get("question", ""), (), picture.where, report)
    if not boxes:
        report.leave_out("answer without a box", picture.where, f"{entry.get('question_id')}: {str(entry.get('ground_truth'))[:60]}")
    return located(text, picture.where, boxes) if boxes and text is not None else None


def _answered(entry: dict[str, Any], answers: dict[int, str], picture: Picture, report: Report) -> Talk | None:
    answer = answers.get(int(entry["question_id"]), "")
    if not answer.strip():
        report.leave_out("question without an answer", picture.where, f"question {entry['question_id']} is not among RSVQA's answers")
        return None
    return question(str(entry.get("category", "open")), _question(entry), answer)
