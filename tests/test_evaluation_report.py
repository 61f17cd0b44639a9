"""The report of a test: whole, true to its numbers, and safe against what data and models write."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from geopix.evaluation.groups import tabulate
from geopix.evaluation.numbers import intervals, numbers
from geopix.evaluation.outcome import Outcome, Pair
from geopix.evaluation.pictures import worth
from geopix.evaluation.protocols import PROTOCOLS, ProtocolName
from geopix.evaluation.report import write_report

EVIL = "</script><script>alert('1')</script><img src=x onerror=\"alert(2)\"> & \\u003c <!-- \ud800"
VOID = {"meta", "br", "img", "input", "link"}


def outcome(number: int, task: str = "segment/single", *pairs: Pair, prompt: str = "the ship?", answer: str = "[SEG]", expected: str = "[SEG]") -> Outcome:
    return Outcome(
        key=f"image-{number // 2}#{number % 2}",
        image=f"image-{number // 2}",
        task=task,
        size=(64, 64),
        prompts=(prompt,),
        expected=(expected,),
        references=(expected,),
        digest=str(number),
        answers=(answer,),
        drew=any(pair.union for pair in pairs),
        targets=sum(pair.area is not None for pair in pairs),
        written=answer.count("[SEG]"),
        pairs=pairs,
    )


def pair(iou: float, name: str | None = "ship", area: int = 1000, quality: float | None = 0.5) -> Pair:
    return Pair(round(1000 * iou), 1000, area, (round(100 * iou), 100), name, quality)


def mixed() -> list[Outcome]:
    """Some of everything, with hostile words wherever words may be."""
    masks = [outcome(number, "segment/single", pair(number / 20, ("ship", "plane", "<b>")[number % 3], (100, 1000, 20000)[number % 3])) for number in range(21)]
    return [
        *masks,
        outcome(30, "segment/multi", pair(0.25), pair(0.75), answer="[SEG] and [SEG]", expected="[SEG] and [SEG]"),
        outcome(31, "segment/single", pair(1.0, quality=None), prompt=EVIL, answer=f"[SEG] {EVIL}"),
        outcome(32, "segment/absent", answer="there is none", expected="there is none"),
        outcome(33, "vqa/presence", answer="Yes.", expected="yes"),
        outcome(34, "vqa/count", answer=EVIL, expected="2"),
        outcome(35, "caption/scene", answer="a ship at sea", expected="a ship in a harbour"),
        outcome(36, "refer/box", answer="{<0><0><10><10>}", expected="{<0><0><10><20>}"),
    ]


def said_of(outcomes: list[Outcome], protocol: ProtocolName = "generate", **more: Any) -> dict[str, Any]:
    rule = PROTOCOLS[protocol]
    table = tabulate(outcomes, rule)
    return {
        "protocol": protocol,
        "definition": rule.says,
        "data": f"toys {EVIL}",
        "data_fingerprint": "f00",
        "remarks": [f"mind {EVIL}"],
        "command": f"geopix test {EVIL}",
        "checkpoint": {"path": EVIL, "sha256": "beef"},
        "interval": {"level": 0.95, "method": "percentile bootstrap over images", "resamples": 50},
        "metrics": {name: round(value, 5) for name, value in sorted(numbers(table, rule).items())},
        "intervals": {name: [round(end, 5) for end in ends] for name, ends in sorted(intervals(table, rule, resamples=50).items())},
        **more,
    }


class Page(HTMLParser):
    """What a browser would find: elements in their order, and which of them are closed wrongly."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if len(dict(attrs)) != len(attrs):
            self.wrong.append(f"{tag} has an attribute twice")
        if tag not in VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        for tag in set(self.open):
            self.texts[tag][-1] += data

    def all(self, tag: str, having: str = "") -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag and (not having or having in attributes)]

    @property
    def data(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.texts["script"][0])
        return found


def page_of(folder: Path, said: dict[str, Any], outcomes: list[Outcome], pictures: dict[str, bytes] | None = None) -> Page:
    write_report(folder / "report.html", said, outcomes, pictures or {})
    return Page((folder / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    outcomes = mixed()
    return page_of(tmp_path_factory.mktemp("report"), said_of(outcomes), outcomes, {outcomes[22].key: b"best", outcomes[0].key: b"worst"})


def test_every_element_is_closed_and_every_id_is_there_once(page: Page) -> None:
    assert page.wrong == []
    assert page.open == []
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {attributes["href"].removeprefix("#") for attributes in page.all("a")} <= set(ids)


def test_what_data_and_models_write_stays_text(page: Page) -> None:
    assert [attributes.get("type", "") for attributes in page.all("script")] == ["application/json", ""]
    assert len(page.all("img")) == 2
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    shown = EVIL.replace("\ud800", "?")
    assert any(shown in text for text in page.texts["h1"])
    assert any(shown in text for text in page.texts["li"])
    assert sum(shown in text for text in page.texts["dd"]) == 2
    assert any(shown in attributes["alt"] for attributes in page.all("img"))
    assert any(EVIL in row[2] for row in page.data["rows"])


def test_nothing_is_asked_of_any_network(page: Page) -> None:
    addresses = [attributes[name] for _, attributes in page.elements for name in ("src", "href", "action", "srcset", "data", "poster") if name in attributes]
    assert addresses
    assert all(address.startswith(("#", "data:image/jpeg;base64,")) for address in addresses)
    style, script = page.texts["style"][0], page.texts["script"][1]
    assert not re.search(r"url\(|@import|https?:", style)
    assert not re.search(r"https?:|fetch\(|XMLHttpRequest|import\(|innerHTML|eval\(", script)


def test_the_browser_is_told_to_run_nothing_but_the_reports_own_script(page: Page) -> None:
    (policy,) = [attributes["content"] for attributes in page.all("meta", "http-equiv")]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    hashes = {name: base64.b64encode(hashlib.sha256(page.texts[name][-1].encode()).digest()).decode() for name in ("style", "script")}
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    assert rules["script-src"] == f"'sha256-{hashes['script']}'"
    assert rules["style-src"] == f"'sha256-{hashes['style']}'"
    assert not [attributes for _, attributes in page.elements if "style" in attributes]


@pytest.mark.parametrize("protocol", ["generate", "peers/rmsin"])
def test_the_numbers_are_those_of_the_metrics_file(tmp_path: Path, protocol: ProtocolName) -> None:
    said = said_of(mixed(), protocol)
    said["metrics"]["unheard/of"] = 12.5
    page = page_of(tmp_path, said, mixed())
    plotted = [value for name, value in said["metrics"].items() if re.fullmatch(r"(class|size)/.*/(giou|miou)", name)]
    assert plotted
    assert sorted(float(each["value"]) for each in page.all("data")) == sorted([*said["metrics"].values(), *plotted])
    ranges = [text for text in page.texts["small"] if re.match(r"-?\d+\.\d{3} to -?\d+\.\d{3}", text)]
    assert len(ranges) == len(said["intervals"]) + len(plotted)
    assert {text.partition(" (")[0] for text in ranges} == {f"{low:.3f} to {high:.3f}" for low, high in said["intervals"].values()}


def test_an_axis_that_is_not_from_0_to_1_is_said(tmp_path: Path) -> None:
    said = said_of(mixed(), metrics={"caption/cider_d": 2.0, "quality/bias": -0.5}, intervals={"caption/cider_d": [1.0, 3.0], "quality/bias": [-0.6, 0.1]})
    page = page_of(tmp_path, said, mixed())
    assert page.texts["small"][:2] == ["1.000 to 3.000 (axis 0 to 10)", "-0.600 to 0.100 (axis -1 to 1)"]
    assert [(each["x"], each["width"]) for each in page.all("rect") if each["class"] == "fill"][:2] == [("0.00", "20.00"), ("25.00", "25.00")]
    assert [(each["x"], each["width"]) for each in page.all("rect") if each["class"] == "range"] == [("10.00", "20.00"), ("20.00", "35.00")]


def test_every_answer_is_there_with_what_it_is_worth(page: Page) -> None:
    data = page.data
    assert [row[0] for row in data["rows"]] == [each.key for each in mixed()]
    for row, each in zip(data["rows"], mixed(), strict=True):
        assert data["tasks"][row[1]] == each.task
        assert [tuple(texts) for texts in row[2:5]] == [each.prompts, each.answers, each.expected]
        assert row[5] == pytest.approx(worth(each), abs=1e-4)
    multi = data["rows"][21]
    assert [[value, data["classes"][name], data["sizes"][size], quality] for value, name, size, quality in multi[6]] == [
        [0.25, "ship", "small", 0.5],
        [0.75, "ship", "small", 0.5],
    ]
    assert data["rows"][22][6][0][3] is None
    assert dict(zip(data["tasks"], data["measures"], strict=True))["segment/absent"] == "refused"


def test_the_words_that_a_protocol_gave_are_worth_nothing(tmp_path: Path) -> None:
    page = page_of(tmp_path, said_of(mixed(), "teacher_forced"), mixed())
    tasks = page.data["tasks"]
    assert {tasks[row[1]] for row in page.data["rows"] if row[5] is None} == {"segment/absent", "vqa/presence", "vqa/count", "caption/scene", "refer/box"}
    assert {each["data-task"] for each in page.all("g")} == {"segment/single", "segment/multi"}


def test_empty_against_empty_is_worth_what_the_protocol_says(tmp_path: Path) -> None:
    outcomes = [outcome(0, "segment/single", Pair(0, 0, 0, (0, 0)))]
    for protocol, value in (("peers/rmsin", 0.0), ("generate", 1.0)):
        assert page_of(tmp_path, said_of(outcomes, protocol), outcomes).data["rows"][0][5] == value


def test_the_bars_of_a_histogram_hold_every_mask_once_and_choose_what_they_hold(page: Page) -> None:
    data, held = page.data, {}
    for bar in page.all("g"):
        low, high, task = float(bar["data-low"]), float(bar["data-high"]), bar["data-task"]
        chosen = [part for row in data["rows"] if data["tasks"][row[1]] == task for part in row[6] if low <= part[0] <= high]
        assert bar["aria-label"].endswith(f": {len(chosen)}")
        held[task] = held.get(task, 0) + len(chosen)
    assert held == {"segment/single": 22, "segment/multi": 2, "caption/scene": 1, "refer/box": 1}


def test_classes_stand_from_good_to_bad_and_sizes_from_small_to_large(page: Page) -> None:
    classes = [each["data-class"] for each in page.all("button", "data-class")]
    metrics = said_of(mixed())["metrics"]
    assert classes == sorted(("ship", "plane", "<b>"), key=lambda name: -metrics[f"class/{name}/giou"])
    assert [each["data-size"] for each in page.all("button", "data-size")] == ["tiny", "small", "large"]


def test_the_worst_pictures_stand_before_the_best_and_name_their_answer(tmp_path: Path) -> None:
    outcomes = mixed()[:21]
    pictures = {outcomes[number].key: str(number).encode() for number in (20, 19, 18, 0, 1, 2)}
    page = page_of(tmp_path, said_of(outcomes), outcomes, pictures)
    rows = [int(each["data-row"]) for each in page.all("figure", "data-row")]
    assert rows == [0, 1, 2, 20, 19, 18]
    assert [base64.b64decode(each["src"].partition(",")[2]) for each in page.all("img")] == [str(row).encode() for row in rows]
    assert "Worst 3" in page.texts["h3"]


def test_the_same_test_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one.html", "two.html"):
        write_report(tmp_path / name, said_of(mixed()), mixed(), {"image-0#0": b"picture"})
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.html", "two.html"]


def test_a_report_that_cannot_be_written_leaves_the_earlier_one(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("earlier", encoding="utf-8")
    with pytest.raises(KeyError):
        write_report(path, said_of(mixed()), [replace(mixed()[0], task="unknown/task")], {})
    (tmp_path / "report.html.part").mkdir()  # stands in the way of writing
    with pytest.raises(IsADirectoryError):
        write_report(path, said_of(mixed()), mixed(), {})
    assert path.read_text(encoding="utf-8") == "earlier"


def test_a_test_of_words_alone_has_a_report(tmp_path: Path) -> None:
    outcomes = [outcome(0, "vqa/count", answer="2", expected="2")]
    page = page_of(tmp_path, said_of(outcomes), outcomes, {outcomes[0].key: b"picture"})
    assert page.wrong == []
    assert page.all("g") == []
    assert len(page.all("img")) == 1
