"""The examples of docs/extend: each keeps its family's contract and trains a step through the command line."""

import importlib
from functools import partial
from pathlib import Path

import pytest

from geopix import zoo
from tests import test_components as contract
from tests.commands import ROOT, geopix
from tests.commands import tiny as run_tiny
from tests.tiny import CLASSES, TINY, Words

EXAMPLES = ROOT / "tests" / "examples"
NAMES = {
    "encoder": ("my_encoder", "HalvingEncoder"),
    "decoder": ("my_decoder", "WrittenNetDecoder"),
    "memory": ("my_memory", "GainMemory"),
    "llm": ("my_llm", "small_llama"),
}


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch):
    """An example by its family, small where it needs to be."""
    monkeypatch.syspath_prepend(EXAMPLES)

    def load(family: str):
        module, name = NAMES[family]
        part = vars(importlib.import_module(module))[name]
        small = {"memory": partial(part, classes=CLASSES), "llm": partial(part, Words(), dim=32, layers=1)}.get(family)
        if small is not None:
            monkeypatch.setitem(TINY, part, small)
        return part

    return load


@pytest.mark.parametrize("size", [(64, 64), (50, 37)])
def test_an_encoder_keeps_its_contract(example, size: tuple[int, int]) -> None:
    contract.test_encoder_tells_the_truth_about_its_maps(example("encoder"), size)
    contract.test_encoder_neighbours_gradients_and_reload(example("encoder"))


@pytest.mark.parametrize("size", [(64, 64), (56, 40)])
def test_a_decoder_keeps_its_contract(example, size: tuple[int, int]) -> None:
    decoder = example("decoder")
    contract.test_decoder_sizes_neighbours_and_nothing_to_draw(decoder, size)
    contract.test_decoder_with_every_memory(decoder, None)
    contract.test_decoder_with_every_memory(decoder, example("memory"))
    contract.test_decoder_under_autocast(decoder)


@pytest.mark.parametrize("size", [(8, 8), (7, 5)])
def test_a_memory_keeps_its_contract(example, size: tuple[int, int]) -> None:
    contract.test_memory_observes_neighbours_nothing_to_draw_and_reload(example("memory"), size)


def test_a_language_model_keeps_its_contract(example) -> None:
    contract.test_language_model_reads_and_writes(example("llm"))
    contract.test_language_model_learns_and_reloads(example("llm"))


OPTIONS = {
    "encoder": ["--model.net.encoder.width", 8],
    "decoder": ["--model.net.decoder.dim", 8],
    "memory": ["--model.net.memory.classes", "[ship, plane]"],
    "llm": ["--model.net.llm.dim", 32, "--model.net.llm.layers", 1, "--model.net.llm.corpus", "geopix.data.scenes.SceneTexts"],
}
OPTIONS["llm"] += ["--model.net.llm.corpus.scenes", 3]


@pytest.mark.parametrize("family", NAMES)
def test_an_example_trains_a_step_and_is_shown(family: str, example, tmp_path: Path) -> None:
    example(family)
    path = ".".join(NAMES[family])
    run_tiny("fit", tmp_path, f"--{zoo.FAMILIES[family].slot}", path, *OPTIONS[family], "--trainer.limit_train_batches", 1, "--trainer.limit_val_batches", 0)
    said = geopix("show", path)
    assert said.code == 0, said.err
    assert path in said.out


@pytest.mark.parametrize("family", NAMES)
def test_an_example_is_short(family: str) -> None:
    text = (EXAMPLES / f"{NAMES[family][0]}.py").read_text(encoding="utf-8")
    assert len([line for line in text.splitlines() if line.strip()]) <= 40
