"""What is built from scenes, checked against what is true of them by code that the builder does not share."""

import copy
import json
import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from geopix.data.instruct import InstructRecords
from geopix.data.scenes.records import Scene
from tests.build_checker import Truth, mistakes

SETS = {"standard 128": ("standard", 128, 180), "hard 128": ("hard", 128, 40), "standard 512": ("standard", 512, 6)}

Built = dict[str, list[tuple[dict, Scene]]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("built")


PROGRAM = """
import pickle, sys
from pathlib import Path
from geopix.data.build.command import main
from geopix.data.scenes import Scenes
for level, size, count in {sets}:
    path = Path(sys.argv[1], f"{{level}}{{size}}.jsonl")
    code = main([str(path), "--scenes", level, "--size", str(size), "--count", str(count), "--workers", "1", "--seed", "5"])
    assert code == 0
    source = Scenes(level, "train", size, seed=5)
    path.with_suffix(".pickle").write_bytes(pickle.dumps([source.scene(index) for index in range(count)]))
"""
"""Runs in a process of its own, where nothing checks the types of every call."""


@pytest.fixture(scope="module")
def built(folder: Path) -> Built:
    subprocess.run([sys.executable, "-c", PROGRAM.format(sets=list(SETS.values())), str(folder)], check=True, capture_output=True, text=True)
    found: Built = {}
    for name, (level, size, _) in SETS.items():
        path = folder / f"{level}{size}.jsonl"
        scenes = pickle.loads(path.with_suffix(".pickle").read_bytes())
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        found[name] = [(record, scenes[int(record["key"].split("-")[-1])]) for record in records]
    return found


@pytest.mark.parametrize("name", SETS)
def test_every_description_selects_exactly_its_object(built: Built, name: str) -> None:
    assert len(built[name]) >= 0.95 * SETS[name][2]
    wrong = [mistake for record, scene in built[name] for mistake in mistakes(record, scene)]
    assert not wrong, f"{len(wrong)}, such as {wrong[:5]}"


def test_the_checker_finds_a_description_that_selects_another_object(built: Built) -> None:
    """Each proved sentence about one thing is turned to another of its class; the checker must object to all of them."""
    turned = caught = 0
    for record, scene in built["standard 128"][:60]:
        for dialogue in record["dialogues"]:
            (proof, *rest) = dialogue["provenance"]["sentences"]
            others = [i for i, thing in enumerate(scene.instances) if thing.name == proof.get("expression", {}).get("class") and [i] != proof["selects"]]
            if dialogue["task"] != "segment/single" or rest or not others:
                continue
            wrong = copy.deepcopy(record | {"dialogues": [dialogue]})
            wrong["dialogues"][0]["provenance"]["sentences"][0]["selects"] = others[:1]
            turned += 1
            caught += bool(mistakes(wrong, scene))
    assert turned > 50
    assert caught == turned


def test_there_are_many_types_of_expressions_rules_and_tasks(built: Built) -> None:
    dialogues = [dialogue for record, _ in built["standard 128"] for dialogue in record["dialogues"]]
    single = [proof for one in dialogues if one["task"] in ("segment/single", "refer/box", "segment/multi") for proof in one["provenance"]["sentences"]]
    types = Counter(proof["type"] for proof in single)
    assert len([name for name, count in types.items() if count >= 3]) >= 12, types
    tasks = Counter(dialogue["task"] for dialogue in dialogues)
    assert {
        "segment/single", "segment/multi", "segment/group", "segment/absent", "segment/followup", "refer/box", "caption/scene", "caption/detailed",
        "vqa/presence", "vqa/count", "vqa/compare", "vqa/colour", "vqa/area",
    } <= set(tasks)  # fmt: skip
    assert len({dialogue["turns"][0]["prompt"].split()[1] for dialogue in dialogues}) > 25, "phrasings differ"
    answers = Counter(turn["answer"] for one in dialogues if one["task"] in ("vqa/presence", "vqa/compare") for turn in one["turns"])
    assert 0.35 < answers["yes"] / (answers["yes"] + answers["no"]) < 0.65


def test_what_is_cut_off_or_tiny_is_never_asked_for_alone_but_counts_against_uniqueness(built: Built) -> None:
    for record, scene in built["standard 128"]:
        rejected = {entry["id"] for entry in record["instances"] if entry.get("distractor_only")}
        assert rejected >= {index for index, thing in enumerate(scene.instances) if thing.truncated and thing.visible < 0.4}
        for dialogue in record["dialogues"]:
            if dialogue["task"] in ("segment/single", "segment/multi", "segment/followup"):
                assert all(target[0] not in rejected for target in dialogue["targets"] if len(target) == 1)
            for proof in dialogue["provenance"]["sentences"]:
                if "tested_against" in proof:
                    name = proof["expression"]["class"]
                    assert proof["tested_against"] == [index for index, thing in enumerate(scene.instances) if thing.name == name]


def test_measured_colours_are_never_wrong_and_the_true_one_is_always_possible(built: Built) -> None:
    named = 0
    for record, scene in (pair for pairs in built.values() for pair in pairs):
        for measured, thing in zip(record["measured"]["things"], scene.instances, strict=True):
            if thing.colour is not None:
                assert measured["colour"] in (thing.colour, None)
                assert thing.colour in measured["colours_possible"]
                named += measured["colour"] is not None
    assert named > 500


def test_hard_negatives_are_classes_that_stand_beside_those_present(built: Built) -> None:
    scenes = [scene for _, scene in built["standard 128"]]
    beside = absent = 0
    for record, scene in built["standard 128"]:
        present = {thing.name for thing in scene.instances}
        for dialogue in record["dialogues"]:
            if dialogue["provenance"]["rule"] == "absent class":
                name = dialogue["provenance"]["sentences"][0]["expression"]["class"]
                assert name not in present
                absent += 1
                beside += any(name in names and names & present for names in ({thing.name for thing in other.instances} for other in scenes))
    assert absent > 60
    assert beside > 0.9 * absent


def test_the_records_train(built: Built, folder: Path) -> None:
    source = InstructRecords(folder / "standard128.jsonl", size=64)
    source.check(20)
    sample = source.sample(0, True)
    record, scene = built["standard 128"][0]
    drawn = [target for dialogue in record["dialogues"] for target in dialogue["targets"]]
    assert sum(len(dialogue.classes) for dialogue in sample.dialogues) == len(drawn)
    assert Truth(scene).size == sample.frame.height
