"""What README and the documentation say is true: blocks parse, commands are accepted, examples run, numbers are those of the result files."""

import importlib.util
import json
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
import torch
import yaml

from benchmarks.readme_numbers import README, picture, results, section, written
from geopix.cli_data import VERBS, parser
from geopix.cli_evaluate import parser as options
from geopix.sweep.command import parser as sweep_options
from tests.commands import ROOT, geopix
from tests.commands import tiny as run_tiny

PAGES = [README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = ROOT / "tests" / "examples"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SNIPPET = re.compile(r'^--8<-- "([^":]+)(?::(\w+))?"$')
CHECKED = {"bash", "json", "python", "text", "yaml"}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(path.read_text(encoding="utf-8"))


def snippet(line: str) -> str:
    """The text that a snippet line stands for; a missing file or section fails."""
    found = SNIPPET.match(line)
    assert found, f"not a snippet line: {line}"
    text = (ROOT / found[1]).read_text(encoding="utf-8")
    if found[2]:
        assert text.count(f"--8<-- [start:{found[2]}]") == text.count(f"--8<-- [end:{found[2]}]") == 1, line
        text = text.split(f"[start:{found[2]}]")[1].split(f"[end:{found[2]}]")[0]
    return text


def commands() -> list[tuple[str, list[str]]]:
    """Every command line of every page, each once, with the page that it stands on."""
    found: dict[str, str] = {}
    for page in PAGES:
        for language, text in blocks(page):
            if language == "bash":
                for line in text.replace("\\\n", " ").splitlines():
                    found.setdefault(" ".join(line.split()), name_of(page))
    return [(page, shlex.split(line, comments=True)) for line, page in found.items() if line]


COMMANDS = commands()
ASKED = [words for _, words in COMMANDS if words[0] == "geopix"]


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_blocks(path: Path) -> None:
    for language, text in blocks(path):
        assert language in CHECKED, f"a block of {language or 'nothing'}: name one of {sorted(CHECKED)}"
        lines = text.strip().splitlines()
        if any("--8<--" in line for line in lines):
            assert all(snippet(line).strip() for line in lines)
        elif language == "yaml":
            assert yaml.safe_load(text)
        elif language == "json":
            assert json.loads(text)
        else:
            assert language != "python", "Python in the documentation comes from a tested file: --8<--"


def test_every_page_is_checked() -> None:
    for path in PAGES:
        assert path.read_text(encoding="utf-8").count("\n```") == 2 * len(blocks(path)), f"{name_of(path)} has a block that is not seen here"
    for path in PAGES[2:]:
        for line in path.read_text(encoding="utf-8").splitlines():
            assert "--8<--" not in line or snippet(line).strip()


@pytest.mark.parametrize("words", [pytest.param(words, id=f"{page}:{' '.join(words)[:60]}") for page, words in COMMANDS if words[0] != "geopix"])
def test_other_commands_name_what_exists(words: list[str]) -> None:
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    elif words[:2] == ["python", "-m"]:
        assert importlib.util.find_spec(words[2])
    else:
        assert words[0] == "python", f"nothing checks {words}"
        assert (ROOT / words[1]).is_file()


@pytest.mark.parametrize("words", [pytest.param(words, id=" ".join(words)) for words in ASKED])
def test_geopix_commands_are_accepted(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(EXAMPLES)
    as_is = words[1] in {"list", "show", "config"} or any(word.endswith(".help") for word in words)
    if words[1] == "data":
        if words[2] in VERBS:
            parser(words[2]).parse_args(words[3:])
        as_is, words = True, words[:3] + ["--help"] * (words[2] != "convert" or len(words) > 3)
    if words[1] in ("score", "compare", "sweep"):
        (options(words[1]) if words[1] != "sweep" else sweep_options()).parse_known_args(words[2:])
        as_is, words = True, [*words[:2], "--help"]
    shown = words[1:] if as_is else [*words[1:], "--print_config"]
    said = geopix(*shown)
    assert said.code == 0, said.err
    assert said.out.strip()


def test_the_flow_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)
    runpy.run_path(str(EXAMPLES / "flow.py"))


def test_a_part_of_ones_own_in_twenty_lines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = (EXAMPLES / "mine.py").read_text(encoding="utf-8")
    assert len([line for line in text.splitlines() if line.strip()]) <= 25
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    mine = importlib.import_module("mine")
    assert mine.MeanConnector([6, 12], 20, side=3)([torch.rand(2, 6, 12, 16), torch.rand(2, 12, 6, 8)]).shape == (2, 9, 20)

    run_tiny("fit", tmp_path, "--model.net.connector", "mine.MeanConnector", "--model.net.connector.side", 2)
    example = runpy.run_path(str(EXAMPLES / "from_python.py"))
    answer, masks = example["ask"](tmp_path / "checkpoints" / "last.ckpt", torch.rand(1, 3, 64, 64), "[segment] where is the ship?")
    assert isinstance(answer, str)
    assert masks.dtype == torch.bool
    assert masks.shape[0] == answer.count("[SEG]")


def test_the_way_of_ten_images_of_ones_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    lines = [
        line
        for language, text in BLOCK.findall(page.split("## Ten images of your own")[1].split("\n## ")[0])
        if language == "bash"
        for line in text.replace("\\\n", " ").splitlines()
    ]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    verbs = []
    for words in map(shlex.split, lines):
        if words[0] == "python":
            runpy.run_path(str(ROOT / words[1]))
            continue
        verbs.append(words[1] if words[1] != "data" else words[2])
        small = ["--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu", "--model.net.llm.tokenizer.corpus.scenes", 5]
        whole = small if words[1] != "data" else []
        said = geopix(*words[1:], *whole)
        assert said.code == 0, said.err
    assert verbs == ["check", "stats", "show", "split", "fit", "predict"]
    assert (tmp_path / "own" / "stats" / "stats.html").is_file()
    assert len(list((tmp_path / "own" / "pictures").glob("*.png"))) == 3
    assert len((tmp_path / "runs" / "own" / "predictions" / "answers.jsonl").read_text().splitlines()) >= 2


def test_readme_holds_the_numbers_of_the_result_files() -> None:
    now = README.read_text(encoding="utf-8")
    assert now == written(now, picture=picture(), numbers=section(results())), "run python benchmarks/readme_numbers.py"


def test_the_numbers_section(tmp_path: Path) -> None:
    result = {"protocol": "generate", "data": "scenes", "command": "geopix test --config configs/quickstart.yaml", "metrics": {"single/giou": 0.61239}}
    (tmp_path / "standard.json").write_text(json.dumps(result))
    (tmp_path / "quickstart.json").write_text(json.dumps(result | {"metrics": {"single/giou": 0.5, "vqa/presence": 0.75}}))
    text = section(results(tmp_path))
    assert "| single referring, gIoU | 0.500 | 0.612 |" in text, "the quickstart stands first"
    assert "| presence questions | 0.750 |  |" in text
    assert result["command"] in text
    (tmp_path / "broken.json").write_text(json.dumps({"metrics": {}}))
    with pytest.raises(ValueError, match=r"broken\.json lacks \['command', 'data', 'protocol'\]"):
        results(tmp_path)
    with pytest.raises(ValueError, match="must hold <!-- numbers:begin"):
        written("no marks", numbers="1")


def test_files_that_readme_links_to_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)", README.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_every_configuration_named_in_the_pages_exists() -> None:
    for path in PAGES:
        for name in re.findall(r"\bconfigs/[\w/]+\.yaml", path.read_text(encoding="utf-8")):
            assert (ROOT / name).is_file(), f"{name_of(path)} names {name}"


def test_every_part_that_stands_for_another_model_was_compared_with_it() -> None:
    lines = (ROOT / "docs" / "parity.md").read_text(encoding="utf-8").splitlines()
    compared = {line.split("|")[1].strip(" `") for line in lines if line.startswith("| `")}
    after = {"SamEncoder", "Sam2Encoder", "MLPConnector", "PixelShuffleConnector", "PerceiverResampler", "ConvAbstractor", "PyramidConnector"}
    after |= {"TwoWayDecoder", "Sam2Decoder", "QueryDecoder", "MultiScaleDecoder"}
    modules = [path for path in (ROOT / "src" / "geopix").rglob("*.py") if path.name in {"hf.py", "timm.py", "smp.py", "unet.py"}]
    part = re.compile(r"^class (\w+)\((?:VisionEncoder|Connector|LanguageModel|Memory|MaskDecoder)\):", re.MULTILINE)
    around = {name for path in modules for name in part.findall(path.read_text(encoding="utf-8"))}
    assert {"TimmEncoder", "HFVisionEncoder", "SmpEncoder", "HFBackboneEncoder", "QFormerConnector", "HFLanguageModel", "UNetDecoder"} <= around
    assert {"FPNDecoder", "UPerNetDecoder"} <= around
    assert (after | around) - compared == {"LoRAEncoder"}, "it adapts one of the others and has no original; run python -m pytest --parity docs/parity.md"


def test_nothing_names_a_registry_or_a_machine() -> None:
    for name in ("Makefile", "constraints.txt", "pyproject.toml", "mkdocs.yml", ".ci/run"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert not re.search(r"https?://|file://|index-url|find-links|/home/|/root/", text), name


def test_the_page_of_metrics_names_every_score_of_the_committed_results() -> None:
    read = [json.loads(path.read_text(encoding="utf-8"))["metrics"] for path in (ROOT / "benchmarks" / "results").glob("*.json")]
    names = {name.split("/")[0] for metrics in read for name in metrics}
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert len(names) > 8
    assert [name for name in sorted(names) if f"`{name}/" not in page] == []
