"""The extender's verbs: what there is, what one part is, and where each value of a configuration comes from."""

import contextlib
import io
import re
from pathlib import Path

import pytest
import yaml

from geopix import zoo
from geopix.__main__ import run
from geopix.cli_origins import annotated
from tests.commands import ROOT, TINY, geopix, message
from tests.tiny import TINY as SIZES


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def said(*args: object) -> str:
    done = geopix(*args)
    assert done.code == 0, done.err
    return done.out


def origins(text: str) -> dict[str, str]:
    """Origin by key, the key in full."""
    found: dict[str, str] = {}
    stack: list[tuple[int, str]] = []
    for line in text.splitlines():
        match = re.match(r"( *(?:- )?)([\w/+.]+):(?=\s|$)", line)
        if match is not None:
            stack = [each for each in stack if each[0] < len(match[1])] + [(len(match[1]), match[2])]
        if "  # " in line:
            found[".".join(name for _, name in stack if name != "init_args")] = line.rpartition("  # ")[2]
    return found


# ---------------------------------------------------------------- list and show


def test_help_names_the_verbs_and_each_has_its_own_at_once() -> None:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        run(["--help"])
        for verb in ("list", "show", "config"):
            run([verb, "--help"])
    for verb in ("list", "show", "config"):
        assert f"\n  {verb} " in out.getvalue()
        assert f"usage: geopix {verb}" in out.getvalue()
    assert "did you mean  list" in message("lsit")


def test_every_part_is_listed_with_its_presets() -> None:
    found = {part for family in zoo.FAMILIES for part in zoo.parts(family)}
    assert set(SIZES) <= found
    text = said("list")
    for part in found:
        assert re.search(rf"^  {part.__name__} +{re.escape(part.__module__)} {{2,}}\S", text, re.MULTILINE), part
    assert re.search(r"presets in configs/memory: classwise, classwise_small", text)
    assert "configs/quickstart.yaml" in text
    assert "connector:" not in said("list", "memory")


def test_a_family_that_is_not_and_a_folder_without_configurations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "did you mean  connector" in message("list", "conector")
    monkeypatch.chdir(tmp_path)
    assert "MLPConnector" in said("list", "connector")
    assert "no folder configs" in message("list", "config")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "broken.yaml").write_text("a: [", encoding="utf-8")
    assert "configs/broken.yaml cannot be read" in message("list", "connector")


@pytest.mark.parametrize("part", [part for family in ("connector", "decoder", "memory") for part in zoo.parts(family)], ids=lambda part: part.__name__)
def test_glue_is_shown_without_its_widths_and_counted(part: type) -> None:
    text = said("show", part.__name__)
    assert text.startswith(f"{part.__module__}.{part.__name__}\n")
    assert re.search(r"^told +channels, (out|prompt)_dim", text, re.MULTILINE)
    assert not re.search(r"^options +channels", text, re.MULTILINE)
    assert re.search(r"^parameters +([\d.,]+ ?[MB]?, |depend on \w+, which has no default: geopix show configs/)", text, re.MULTILINE), text


def test_what_is_shown_of_a_part() -> None:
    text = said("show", "mlpconnector")
    wanted = ["hidden: int | None = None", "21 M, all trained, for maps of (256, 512, 1024) channels and a language model of width 4096"]
    wanted += ["https://arxiv.org/abs/2310.03744", "src/geopix/connectors/mlp.py", "configs/connector/mlp.yaml", "geopix.contracts.Connector: "]
    wanted += ['forward(features: list[Float[Tensor, "b _ _ _"]]) -> Float[Tensor, "b n d"]'.replace('"', "'")]
    assert [each for each in wanted if each not in text] == []
    assert text == said("show", "geopix.connectors.mlp.MLPConnector")


def test_what_is_shown_of_a_file() -> None:
    text = said("show", "configs/memory/classwise.yaml")
    assert "over the 20 classes of DIOR" in text
    assert re.search(r"^parameters +474,964, all trained, for levels of \(256, 256\)", text, re.MULTILINE)
    assert re.search(r"^parameters +1\.\d+ M, all trained$", said("show", "configs/encoder/small_conv.yaml"), re.MULTILINE)
    far = said("show", "configs/llm/qwen3_8b.yaml")
    assert "size: 8.19 B parameters" in far
    assert "not counted, since it cannot be built here: source: 'Qwen/Qwen3-8B'" in far
    assert "depend on source, which has no default: geopix show configs/llm/" in said("show", "HFLanguageModel")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("MPLConector", ['no part is named "MPLConector"', "MLPConnector"]),
        ("geopix.decoders.unet.UnetDecoder", ["UNetDecoder"]),
        ("nowhere.MLPConnector", ["No module named 'nowhere'", "did you mean  MLPConnector"]),
        ("geopix.model.GeoPixModel", ["is no part", "encoder, connector"]),
        ("configs/quickstart.yaml", ["is no part", "geopix config configs/quickstart.yaml"]),
        ("configs/llm/qwen_8b.yaml", ["does not exist", "configs/llm/qwen3_8b.yaml"]),
    ],
)
def test_a_name_that_is_no_part(name: str, wanted: list[str]) -> None:
    told = message("show", name)
    assert [each for each in wanted if each not in told] == [], told
    assert "takes one name" in message("show")


def test_the_page_of_the_zoo_is_what_the_code_says() -> None:
    assert (ROOT / "docs" / "zoo.md").read_text(encoding="utf-8") == said("list", "--markdown"), "run geopix list --markdown > docs/zoo.md"


# ---------------------------------------------------------------- config


def test_config_is_what_runs_with_the_origin_of_each_value() -> None:
    options = ["--model.net.connector", "configs/connector/resampler.yaml", "--model.net.llm", "configs/llm/llava_1_5_7b.yaml"]
    options += ["--data.batch_size", 4, "--model.net.decoder.dim=32", "--model.net.memory", "null"]
    text = said("config", "configs/quickstart.yaml", *options)
    assert yaml.safe_load(text) == yaml.safe_load(said("fit", "--config", "configs/quickstart.yaml", *options, "--print_config"))
    found = origins(text)
    assert found["trainer.precision"] == "configs/quickstart.yaml:6"
    assert found["trainer.max_epochs"] == "default"
    assert found["model.net.encoder.levels"] == "configs/encoder/small_conv_fine.yaml:6"
    assert found["model.net.encoder.weights"] == "default"
    assert found["model.net.connector.class_path"] == found["model.net.connector.tokens"].replace(":3", ":2") == "configs/connector/resampler.yaml:2"
    assert found["model.net.llm.source"] == "configs/llm/llava_1_5_7b.yaml:8"
    assert found["model.net.llm.template"].startswith("configs/llm/llava_1_5_7b.yaml:")
    assert found["model.net.llm.seg_tokens"] == "configs/llm/embedded_small.yaml:5", "kept from the part before, which has the same class"
    assert found["model.net.decoder.grid"] == "configs/decoder/multi_scale_96px.yaml:3"
    assert found["model.net.decoder.dim"] == found["model.net.memory"] == found["data.batch_size"] == "command line"


def test_the_origins_of_what_was_changed_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = "# one\nclass_path: geopix.memory.prototype.PrototypeMemory\ninit_args: {classes: [ship], momentum: 0.5}\n"
    (tmp_path / "memory.yaml").write_text(memory, encoding="utf-8")
    (tmp_path / "two.yaml").write_text(
        "model.net.own_state: true\nmodel:\n  net:\n    decoder: {class_path: geopix.decoders.two_way.TwoWayDecoder, init_args: {level: 1}}\n"
        "model.net.memory: memory.yaml\n"
        "trainer:\n  callbacks+:\n    - geopix.monitor.Curves\n    - {class_path: geopix.monitor.AnswerPictures, init_args: {count: 5}}\n",
        encoding="utf-8",
    )
    options = ["--trainer.callbacks+", "geopix.monitor.AnswerPictures", "--trainer.callbacks.every", 7, "--model.net.encoder.levels", "[0, 1]"]
    options += ["--model.net.connector", "geopix.connectors.linear.LinearConnector"]
    monkeypatch.chdir(tmp_path)
    text = said("config", TINY, "two.yaml", *options)
    assert yaml.safe_load(text) == yaml.safe_load(said("fit", "--config", TINY, "--config", "two.yaml", *options, "--print_config"))
    found = origins(text)
    tiny = dict(enumerate(TINY.read_text(encoding="utf-8").splitlines(), 1))
    assert found["model.net.own_state"] == "default", "the mapping behind it replaces it"
    assert found["model.net.memory.class_path"] == "memory.yaml:2"
    assert found["model.net.memory.classes"] == found["model.net.memory.momentum"] == "memory.yaml:3"
    assert "slots: 2, dim: 8" in tiny[int(found["model.net.memory.dim"].rpartition(":")[2])], "kept, since both classes have it"
    assert found["model.net.decoder.level"] == "two.yaml:4"
    assert found["model.net.decoder.depth"] == "default"
    assert found["model.net.encoder.levels"] == found["model.net.connector.class_path"] == "command line"
    callbacks = [line.rpartition("  # ")[2] for line in text.splitlines() if "class_path: geopix.curriculum" in line or "class_path: geopix.monitor" in line]
    assert callbacks == [f"{TINY}:12", "two.yaml:8", "two.yaml:9", "command line"]
    assert re.search(r"every: 7 +# command line", text)
    assert re.search(r"count: 5 +# two.yaml:9", text)


def test_the_origins_of_values_that_the_parser_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.yaml").write_text("part: {class_path: m.A, init_args: {dim: 8, kept: 3}}\nother: {class_path: m.A, init_args: {dim: 8}}\nlist: [1, 2]\n")
    (tmp_path / "two.yaml").write_text("part: {class_path: m.B}\nother: null\nlist: [3]\nwords: |-\n  one\n  two\nempty: {}\n")
    merged = (
        "part:\n  class_path: m.A\n  init_args:\n    dim: 16\n    kept: 3\nother:\n  class_path: m.A\n  init_args:\n    dim: 8\n"
        "list:\n- 3\nwords: |-\n  one\n  two\nempty: {}\n"
    )
    text = annotated(merged, ["--config=one.yaml", "--config", "two.yaml", "--part", "m.A", "--other", "m.A", "--words=one\ntwo", "--empty", "{}"])
    assert yaml.safe_load(text) == yaml.safe_load(merged)
    expected = {"part.class_path": "command line", "part.dim": "default", "part.kept": "one.yaml:1", "other.class_path": "command line"}
    expected |= {"other.dim": "default", "list": "two.yaml:3", "words": "command line", "empty": "command line"}
    assert origins(text) == expected


def test_a_mistake_is_told_as_by_fit() -> None:
    assert "did you mean  --data.batch_size" in message("config", TINY, "--data.batchsize", 4)
