"""Masks as run-length text and back."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from geopix.data.descriptors import read_descriptors, write_descriptors
from geopix.data.frame import letterbox
from geopix.data.source import Source, collate
from geopix.decoders.dot import DotDecoder
from geopix.types import SEG, Dialogue, Sample, Turn
from tests import tiny

grids = st.integers(1, 12).flatmap(lambda side: st.lists(st.lists(st.booleans(), min_size=side, max_size=side), min_size=side, max_size=side))


@settings(deadline=None)
@given(grids, st.integers(1, 4), st.integers(1, 4))
def test_a_mask_of_whole_cells_comes_back(cells: list[list[bool]], tall: int, wide: int) -> None:
    grid = torch.tensor(cells)
    mask = grid.repeat_interleave(tall, 0).repeat_interleave(wide, 1)
    text = write_descriptors(mask, len(grid))
    assert torch.equal(read_descriptors(text, (len(grid), len(grid))), grid)
    assert torch.equal(read_descriptors(text, (mask.shape[0], mask.shape[1])), mask)
    assert write_descriptors(read_descriptors(text, (mask.shape[0], mask.shape[1])), len(grid)) == text


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 20), st.integers(0, 2**31 - 1))
def test_any_mask_is_written_and_what_was_written_is_a_fixed_point(height: int, width: int, side: int, seed: int) -> None:
    mask = torch.rand(height, width, generator=torch.Generator().manual_seed(seed)) > 0.5
    grid = read_descriptors(write_descriptors(mask, side), (side, side))
    assert torch.equal(grid, F.adaptive_avg_pool2d(mask.double()[None], (side, side))[0] >= 0.5)
    assert read_descriptors(write_descriptors(mask, side), (height, width)).shape == mask.shape


def test_the_form_is_that_of_the_paper() -> None:
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[8:16, 16:24] = True
    assert write_descriptors(mask, 4, name="small red ship") == "others *4\n others *2| small red ship *1| others *1\n others *4\n others *4"


def test_a_model_s_spaces_around_rows_and_its_words_for_the_object_are_read() -> None:
    assert read_descriptors("\nothers *1| a *1\n  b b *2 \n", (2, 2)).tolist() == [[False, True], [True, True]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "row 1 .* holds ''"),
        ("Sure, it is there.", "row 1 .* holds 'Sure"),
        ("others *2\n others *1| ", "row 2 .* holds"),
        ("others *2\n others *1| target", "row 2 .* holds 'target'"),
        ("others *2\n others *1| *1", "row 2 .* holds"),
        ("others *2\n others *1| target *0", "row 2 .* holds"),
        ("others *2\n others *1| target *-1", "row 2 .* holds"),
        ("others *3\n\n others *3", "row 2 .* holds ''"),
        ("others *2\n others *1", "row 2 .* has 1 cells but there are 2 rows"),
        ("others *2\n others *1| target *2", "row 2 .* has more than 2 cells"),
        ("others *99999999999999999999", "row 1 .* has more than 1 cells"),
    ],
)
def test_malformed_text_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_descriptors(text, (8, 8))


@settings(deadline=None)
@given(st.text(alphabet="ab *|\n0123-"))
def test_any_text_is_read_or_refused_with_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert read_descriptors(text, (3, 5)).shape == (3, 5)


@pytest.mark.parametrize("name", ["", "others", "a|b", "a *2", " a", "a\nb", "a  b"])
def test_a_label_that_could_not_be_read_back_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="could not be read back"):
        write_descriptors(torch.ones(4, 4, dtype=torch.bool), 2, name=name)


def test_a_grid_has_cells() -> None:
    with pytest.raises(ValueError, match="at least one cell"):
        write_descriptors(torch.ones(4, 4, dtype=torch.bool), 0)


# ---------------------------------------------------------------- the decoder-free baseline, as docs/decoder_free.md shows it


# --8<-- [start:source]
class Described(Source):
    """Any source, its masks written into the answers as text."""

    def __init__(self, source: Source, side: int = 16) -> None:
        self.source, self.side = source, side
        self.bands, self.count = source.bands, source.count
        self.title = f"{source.title}, masks as text on {side}x{side} cells"

    def check(self) -> None:
        self.source.check()

    def sample(self, index: int, mix: Mapping[str, float] | None = None, *, truth: bool = False, epoch: int = 0) -> Sample:
        sample = self.source.sample(index, mix)
        dialogues = tuple(self._write(dialogue) if dialogue.task.startswith("segment/") else dialogue for dialogue in sample.dialogues)
        return replace(sample, dialogues=dialogues, truth=tuple(() for _ in dialogues) if truth else None)

    def _write(self, dialogue: Dialogue) -> Dialogue:
        texts = iter([f"<seg>{write_descriptors(mask, self.side)}</seg>" for mask in (dialogue.masks if dialogue.masks is not None else ())])
        turns = tuple(Turn(turn.prompt, re.sub(re.escape(SEG), lambda _: next(texts), turn.answer)) for turn in dialogue.turns)
        return Dialogue(turns, task="caption/descriptors")


# --8<-- [end:source]


# --8<-- [start:read]
def read_answer(answer: str, size: tuple[int, int]) -> list[torch.Tensor]:
    """The masks of an answer, in order; text that describes no mask counts as an empty one."""
    masks = []
    for text in re.findall(r"<seg>(.*?)</seg>", answer, re.DOTALL):
        try:
            masks.append(read_descriptors(text, size))
        except ValueError:
            masks.append(torch.zeros(size, dtype=torch.bool))
    return masks


# --8<-- [end:read]


class OneShip(Source):
    bands, count, title = 3, 1, "one ship"

    def check(self) -> None:
        pass

    def sample(self, index: int, mix: Mapping[str, float] | None = None, *, truth: bool = False, epoch: int = 0) -> Sample:
        mask = torch.zeros(2, 64, 64, dtype=torch.bool)
        mask[0, 8:24, 32:48] = mask[1, 40:, :16] = True
        ship = Dialogue((Turn("[segment] can you segment the ships?", "Sure, they are [SEG] and [SEG]."),), mask, ("ship", "ship"), "segment/group")
        absent = Dialogue((Turn("[segment] the plane?", "There is no plane in this image."),), mask[:0], (), "segment/absent")
        image, frame = letterbox(torch.rand(3, 64, 64), 64)
        return Sample(image, (ship, absent, Dialogue((Turn("[vqa] is there a plane?", "no"),), task="vqa/presence")), f"{index}", frame)


def test_a_model_learns_masks_as_text_and_draws_nothing() -> None:
    sample = Described(OneShip(), side=8).sample(0, truth=True)
    assert [dialogue.task for dialogue in sample.dialogues] == ["caption/descriptors", "caption/descriptors", "vqa/presence"]
    net, batch = tiny.model(memory=False, decoder=DotDecoder), collate([sample])
    output = net(batch)
    assert len(output.drawing.mask_logits) == 0
    F.cross_entropy(output.logits, output.labels).backward()
    tokens = net.llm.tokenize(batch.dialogues[:1], 1)
    said = net.llm.decode(torch.where(tokens.labels == -100, 0, tokens.labels)[:, tokens.labels[0] != -100])
    for found, mask in zip(read_answer(said[0], (64, 64)), OneShip().sample(0).dialogues[0].masks, strict=True):
        assert torch.equal(found, mask)
    assert read_answer("Sure, it is <seg>others *3\n others *1</seg>.", (4, 4))[0].sum() == 0
