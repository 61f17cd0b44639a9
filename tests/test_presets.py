"""Whole systems: each trains, answers and is read back at a tiny size; what its header says is counted; weights that are not here are told at once."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import constants

from benchmarks.preset_sizes import LANGUAGE, TOWERS, names, told
from geopix.checkpoint import SLOTS
from geopix.cli_weights import KNOWN, refuse_missing
from geopix.task import GeoPixTask
from tests.commands import ROOT, geopix, message

CONFIGS = ROOT / "configs"
NAMES = sorted(path.stem for path in (CONFIGS / "tiny").glob("*.yaml"))
HEADER = ["Paper: https://arxiv.org/abs/", "Code: ", "Faithful: ", "Not faithful: ", "Stages: ", "Needs: a GPU of ", "Weights: ", "run with real weights: no"]
Runs = Callable[[str], Path]


def files(name: str) -> list[object]:
    return ["--config", CONFIGS / f"{name}.yaml", "--config", CONFIGS / "tiny" / f"{name}.yaml"]


def header(name: str) -> str:
    """The comment on top, on one line."""
    found = re.match(r"(?:#[^\n]*\n)*", (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))
    assert found
    return " ".join(re.sub(r"^#", "", found[0], flags=re.MULTILINE).split())


def classes(net: dict[str, Any]) -> dict[str, list[str]]:
    """Class paths of each slot, the parts inside a part included."""
    return {slot: re.findall(r"class_path: (geopix\.(?!llms\.tokenizer|data)\S+)", yaml.safe_dump(net.get(slot))) for slot in SLOTS}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """The run folder of each system's tiny training, which happens when it is first asked for."""
    done: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in done:
            done[name] = tmp_path_factory.mktemp(name)
            said = geopix("fit", *files(name), "--trainer.default_root_dir", done[name], "--model.max_new_tokens", 4)
            assert said.code == 0, said.err
        return done[name]

    return folder


@pytest.mark.filterwarnings("ignore:Found keys that are in the model state dict")  # frozen weights come from their source, not from a checkpoint
@pytest.mark.parametrize("name", NAMES)
def test_a_system_trains_answers_and_is_read_back(name: str, runs: Runs) -> None:
    folder = runs(name)
    said = geopix("test", *files(name), "--trainer.default_root_dir", folder, "--ckpt_path", "last", "--model.max_new_tokens", 4)
    assert said.code == 0, said.err
    assert (folder / "metrics.json").is_file()

    last = folder / "checkpoints" / "last.ckpt"
    task, state = GeoPixTask.load_from_checkpoint(last, map_location="cpu"), torch.load(last, weights_only=True)["state_dict"]
    own = task.state_dict()
    assert task.trainable <= set(state)
    assert all(torch.equal(own[key], value) for key, value in state.items() if isinstance(value, torch.Tensor))


@pytest.mark.parametrize("name", NAMES)
def test_a_tiny_twin_has_the_classes_and_the_stages_of_its_system(name: str, runs: Runs) -> None:
    said = geopix("fit", "--config", CONFIGS / f"{name}.yaml", "--print_config")
    full, tiny = yaml.safe_load(said.out), yaml.safe_load((runs(name) / "config.yaml").read_text(encoding="utf-8"))
    assert classes(full["model"]["net"]) == classes(tiny["model"]["net"])
    assert full["model"]["loss"] == tiny["model"]["loss"]
    assert full["model"]["net"]["own_state"] == tiny["model"]["net"]["own_state"]
    stages = [[{**stage, "samples": 0} for stage in each["trainer"]["callbacks"][0]["init_args"]["stages"]] for each in (full, tiny)]
    assert stages[0] == stages[1]


def test_a_checkpoint_of_another_system_is_refused_with_its_parts(runs: Runs) -> None:
    ckpt = runs("pixellm_7b") / "checkpoints" / "last.ckpt"
    said = message("test", *files("lisa_7b"), "--ckpt_path", ckpt, code=5)
    assert "different parts" in said
    for slot, other in {"encoder": "HFVisionEncoder", "connector": "MLPConnector", "decoder": "MultiScaleDecoder", "pixel_encoder": "none"}.items():
        assert re.search(rf"model\.net\.{slot} +\S*{other} ", said), said


# ---------------------------------------------------------------- headers


def test_every_system_of_published_size_has_a_tiny_twin_and_a_header_that_says_what_it_is() -> None:
    assert names() == NAMES
    for name in NAMES:
        said = header(name)
        assert [each for each in HEADER if each not in said] == [], name


@pytest.mark.parametrize("name", ["geochat_7b", "geopix_7b", "lisa_7b", "sa2va_like", "segearth_r1"])
def test_headers_hold_the_parameters_that_the_benchmark_counts(name: str) -> None:
    assert told(name) in header(name), "run python benchmarks/preset_sizes.py and write its line into the header"


def test_weights_that_the_configurations_name_are_known_by_size_and_licence() -> None:
    assert set(TOWERS) | set(LANGUAGE) <= set(KNOWN)
    for path in CONFIGS.glob("**/*.yaml"):
        text = "\n".join(line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#"))
        for folder, name in re.findall(r"\b(?:source|weights): (?:&\w+ )?(\./)?([\w-]+/[\w.-]+)", text):
            known = [each for each in KNOWN if each == name or (folder and each.rpartition("/")[2] == name.rpartition("/")[2])]
            assert known, f"{path} names {name}"
            assert path.parent != CONFIGS or f"{known[0]} (" in header(path.stem), f"{path} does not say the licence of {known[0]}"


# ---------------------------------------------------------------- weights that are not here


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder to work in, an empty cache, and a hub that may not be asked."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_all_weights_that_are_not_here_are_told_at_once(offline: Path) -> None:
    said = message("fit", "--config", CONFIGS / "lisa_7b.yaml")
    assert said.startswith("geopix: 3 things that this configuration reads are not on this machine\n")
    for line in (
        "encoder.source  openai/clip-vit-large-patch14 (1.7 GB, MIT): hf download openai/clip-vit-large-patch14\n",
        "llm.source  llava-hf/llava-1.5-7b-hf (14.1 GB, Llama 2 Community License): hf download llava-hf/llava-1.5-7b-hf\n",
        "decoder.weights, pixel_encoder.source  ./weights/sam-vit-huge (2.6 GB, Apache-2.0): "
        "hf download facebook/sam-vit-huge --local-dir ./weights/sam-vit-huge\n",
        "next      fetch them where there is a network",
    ):
        assert line in said


def test_a_folder_is_looked_into_and_a_name_of_the_hub_only_offline(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = offline / "weights" / "sam-vit-huge"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}", encoding="utf-8")
    tower = {"class_path": "mine.Tower", "init_args": {"source": "someone/tower"}}
    net = {
        "encoder": {"class_path": "mine.Reader", "init_args": {"encoder": tower, "weights": "imagenet"}},
        "llm": {"class_path": "mine.Model", "init_args": {"source": "someone/model", "tokenizer": "someone/words", "lora": None}},
        "decoder": {"class_path": "mine.Decoder", "init_args": {"weights": "./weights/sam-vit-huge"}},
        "pixel_encoder": {"class_path": "mine.Tower", "init_args": {"source": "./weights/sam-vit-huge"}},
        "memory": None,
    }
    with pytest.raises(ValueError, match="4 things that this configuration reads") as told_all:
        refuse_missing(net)
    for line in (
        "encoder.source  someone/tower: hf download someone/tower",
        "llm.source  someone/model: hf download someone/model",
        "llm.tokenizer  someone/words: hf download someone/words",
        "pixel_encoder.source  ./weights/sam-vit-huge (2.6 GB, Apache-2.0) lacks the weights (model.safetensors, or its index and shards): hf download",
    ):
        assert line in str(told_all.value)

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(ValueError, match="1 thing that this configuration reads is not on this machine"):
        refuse_missing(net)
    (folder / "model.safetensors").write_bytes(b"")
    refuse_missing(net)
