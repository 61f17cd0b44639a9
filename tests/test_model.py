"""The whole model: reading and writing draw the same masks, and nothing that an answer holds reaches the question."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from geopix.connectors.mlp import MLPConnector
from geopix.data.source import collate
from geopix.decoders.dot import DotDecoder
from geopix.decoders.multi_scale import MultiScaleDecoder
from geopix.encoders.timm import TimmEncoder
from geopix.evaluation.scores import Scores
from geopix.llms.hf import HFLanguageModel
from geopix.losses import LossWeights, loss_terms, weight_of
from geopix.memory.classwise import ClasswiseMemory
from geopix.model import GeoPixModel, gather_seg
from geopix.task import GeoPixTask
from geopix.types import Batch, Prediction, Turn
from tests import tiny, toys

STEPS = 120


def samples():
    return [toys.sample(0, *toys.KINDS), toys.sample(1, "segment/multi", "segment/single"), toys.sample(2, "segment/followup")]


def ask(model: GeoPixModel, batch: Batch, **settings) -> Prediction:
    prompts = [[turn.prompt for turn in turns] for turns in batch.dialogues]
    return model.generate(model.encode(batch.images), prompts, batch.image_index, max_new_tokens=24, **settings)


@pytest.fixture(scope="module")
def learned() -> GeoPixModel:
    """A tiny model that knows the answers to ten dialogues about three images by heart, in words and masks."""
    torch.manual_seed(0)
    model, batch, weights = tiny.model(decoder=DotDecoder), collate(samples()), LossWeights()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.0)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = 5e-3 * min(1, (step + 1) / 10) * (1 - step / STEPS)
        output = model(batch, torch.rand(len(batch.masks)) < 0.5)
        loss = sum(weight_of(name, weights) * value / count.clamp(min=1) for name, (value, count) in loss_terms(output, batch.masks).items())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval()


@pytest.fixture(params=[DotDecoder, MultiScaleDecoder])
def model(learned: GeoPixModel, request: pytest.FixtureRequest) -> GeoPixModel:
    """The words that were learnt, drawn by either decoder."""
    if request.param is DotDecoder:
        return learned
    torch.manual_seed(1)
    return GeoPixModel(learned.encoder, lambda _in, _out: learned.connector, learned.llm, tiny.TINY[MultiScaleDecoder], tiny.TINY[ClasswiseMemory]).eval()


# ---------------------------------------------------------------- learning


def test_a_few_images_are_learnt_by_heart(learned: GeoPixModel) -> None:
    batch = collate(samples())
    prediction = ask(learned, batch)
    assert prediction.answers == tuple(tuple(turn.answer for turn in turns) for turns in batch.dialogues)
    scores = Scores()
    scores.update(batch, prediction)
    found = scores.compute()
    for kind in ("single", "multi", "followup"):
        assert found[f"{kind}/giou"] > 0.95


# ---------------------------------------------------------------- reading equals writing


@pytest.mark.parametrize("own_state", [False, True])
def test_masks_drawn_while_writing_equal_those_of_the_finished_text(model: GeoPixModel, own_state: bool) -> None:
    model.own_state = own_state
    try:
        batch = collate(samples())
        written = ask(model, batch)
        counts = [sum(answer.count("[SEG]") for answer in answers) for answers in written.answers]
        assert set(counts) == {0, 1, 2}
        finished = tuple(tuple(map(Turn, (turn.prompt for turn in turns), answers)) for turns, answers in zip(batch.dialogues, written.answers, strict=True))
        with torch.no_grad():
            read = model(replace(batch, dialogues=finished)).drawing
        assert written.drawing.dialogue_index.tolist() == read.dialogue_index.tolist() == [row for row, count in enumerate(counts) for _ in range(count)]
        torch.testing.assert_close(written.drawing.mask_logits, read.mask_logits, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(written.drawing.class_logits, read.class_logits, rtol=1e-4, atol=1e-4)
    finally:
        model.own_state = False


def test_own_state_is_another_state(model: GeoPixModel) -> None:
    batch = collate(samples()[:1])
    before = ask(model, batch)
    model.own_state = True
    try:
        after = ask(model, batch)
    finally:
        model.own_state = False
    assert before.answers == after.answers
    assert not torch.allclose(before.drawing.mask_logits, after.drawing.mask_logits, atol=1e-2)


@pytest.mark.parametrize("kinds", [("segment/single", "segment/multi", "segment/followup", "caption/scene")])
def test_a_batch_equals_its_dialogues_alone(model: GeoPixModel, kinds: tuple[str, ...]) -> None:
    images = [0, 1, 2, 2]
    together = ask(model, collate([toys.sample(0, kinds[0]), toys.sample(1, kinds[1]), toys.sample(2, *kinds[2:])]))
    for row, (image, kind) in enumerate(zip(images, kinds, strict=True)):
        alone = ask(model, collate([toys.sample(image, kind)]))
        assert together.answers[row] == alone.answers[0]
        torch.testing.assert_close(together.drawing.mask_logits[together.drawing.dialogue_index == row], alone.drawing.mask_logits, rtol=1e-4, atol=1e-4)


def test_seen_once_and_asked_twice(model: GeoPixModel) -> None:
    batch = collate([toys.sample(0, "segment/single", "segment/multi")])
    seen = model.encode(batch.images)
    prompts = [[turn.prompt for turn in turns] for turns in batch.dialogues]
    both = model.generate(seen, prompts, batch.image_index, max_new_tokens=24)
    for row in (1, 0):
        once = model.generate(seen, prompts[row : row + 1], batch.image_index[row : row + 1], max_new_tokens=24)
        assert once.answers[0] == both.answers[row]
        torch.testing.assert_close(once.drawing.mask_logits, both.drawing.mask_logits[both.drawing.dialogue_index == row], rtol=1e-4, atol=1e-4)
    swapped = model.generate(model.encode(batch.images.flip(-1, -2)), prompts, batch.image_index, max_new_tokens=24)
    assert not torch.equal(swapped.drawing.mask_logits, both.drawing.mask_logits), "the image matters"


def test_later_turns_see_the_model_s_own_earlier_answers(model: GeoPixModel, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    tokenize = model.llm.tokenize
    monkeypatch.setattr(model.llm, "tokenize", lambda dialogues, visual, *, ask: asked.append(dialogues) or tokenize(dialogues, visual, ask=ask))
    batch = collate([toys.sample(0, "segment/followup", "vqa/presence")])
    prediction = ask(model, batch)
    assert [[len(turns) for turns in dialogues] for dialogues in asked] == [[1, 1], [2]]
    assert asked[1][0][0].answer == prediction.answers[0][0] == "yes"


def test_any_earlier_answer_can_be_built_upon() -> None:
    torch.manual_seed(3)
    model = tiny.model(decoder=DotDecoder).eval()
    prompts = [["[segment] the ship?", "[vqa] and now?", "[segment] again?"], ["[vqa] a plane?"]]
    seen = model.encode(torch.rand(1, 3, 64, 64))
    for tokens in (1, 5):
        prediction = model.generate(seen, prompts, torch.tensor([0, 0]), max_new_tokens=tokens)
        assert [len(answers) for answers in prediction.answers] == [3, 1]
    nothing = model.generate(seen, [], torch.zeros(0, dtype=torch.long))
    assert nothing.answers == ()
    assert len(nothing.drawing.mask_logits) == 0


# ---------------------------------------------------------------- what an asker may know


def spoiled(batch: Batch) -> Batch:
    """The same questions with other true answers, masks, classes and truth."""
    turns = tuple(tuple(Turn(turn.prompt, f"never {turn.answer}") for turn in dialogue) for dialogue in batch.dialogues)
    assert batch.truth is not None
    return replace(batch, dialogues=turns, masks=~batch.masks, classes=("building",) * len(batch.masks), truth=batch.truth[::-1])


def test_answers_depend_on_images_and_prompts_alone(model: GeoPixModel) -> None:
    batch = collate(samples())
    task = GeoPixTask(model, max_new_tokens=24)
    one, two = task.answer(batch), task.answer(spoiled(batch))
    assert one.answers == two.answers
    assert torch.equal(one.drawing.mask_logits, two.drawing.mask_logits)
    named = GeoPixTask(model, max_new_tokens=24, protocol="generate_named")
    other = named.answer(spoiled(batch)).drawing.mask_logits
    assert not torch.equal(named.answer(batch).drawing.mask_logits, other), "the named protocol does tell the class"


def test_a_class_that_the_memory_does_not_know_is_no_error(model: GeoPixModel) -> None:
    batch = collate(samples())
    unknown = replace(batch, classes=tuple("airship" for _ in batch.classes))
    told = torch.ones(len(batch.masks), dtype=torch.bool)
    with torch.no_grad():
        output = model(unknown, told)
        assert output.class_ids.tolist() == [-1] * len(batch.masks)
        torch.testing.assert_close(output.drawing.mask_logits, model(batch).drawing.mask_logits)
        assert not torch.equal(output.drawing.mask_logits, model(batch, told).drawing.mask_logits)
        assert model(batch).class_ids.tolist() == [{"ship": 0, "plane": 1, None: -1}[name] for name in batch.classes]


def test_named_masks_are_told_in_order(model: GeoPixModel) -> None:
    batch = collate([toys.sample(0, "segment/multi", "segment/single")])
    named = ask(model, batch, classes=[["ship", "plane"], ["ship"]])
    with torch.no_grad():
        read = model(batch, torch.ones(3, dtype=torch.bool))
    torch.testing.assert_close(named.drawing.mask_logits, read.drawing.mask_logits, rtol=1e-4, atol=1e-4)
    short = ask(model, batch, classes=[["ship"], []])
    torch.testing.assert_close(short.drawing.mask_logits[0], named.drawing.mask_logits[0], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(short.drawing.mask_logits[1], named.drawing.mask_logits[1], atol=1e-6)


# ---------------------------------------------------------------- what does not fit is refused


def test_masks_and_segs_must_agree(learned: GeoPixModel) -> None:
    batch = collate(samples())
    with pytest.raises(ValueError, match=rf"hold {len(batch.masks)} \[SEG\] but it has {len(batch.masks) - 1} masks"):
        learned(replace(batch, masks=batch.masks[1:], dialogue_index=batch.dialogue_index[1:], classes=batch.classes[1:]))


def test_bands_must_agree(learned: GeoPixModel) -> None:
    with pytest.raises(ValueError, match=r"the data gives 4 bands but the encoder reads 3.*data\.\*\.bands"):
        learned.encode(torch.rand(1, 4, 64, 64))


def parts():
    return tiny.TINY[TimmEncoder](), tiny.TINY[MLPConnector], tiny.TINY[tiny.HFLanguageModel]()


def test_tokens_per_mask_must_agree() -> None:
    llm = tiny.HFLanguageModel(source=tiny.LLAMA, tokenizer=tiny.tokenizer(), seg_tokens=2)
    encoder, connector, _ = parts()
    with pytest.raises(ValueError, match=r"MultiScaleDecoder reads 6 segmentation tokens per mask but one \[SEG\] becomes 2"):
        GeoPixModel(encoder, connector, llm, tiny.TINY[MultiScaleDecoder])
    GeoPixModel(encoder, connector, llm, tiny.TINY[DotDecoder])


# ---------------------------------------------------------------- two encoders, runs of tokens


def test_reading_with_one_encoder_and_drawing_with_another() -> None:
    encoder, connector, llm = parts()
    options = {"layers": [1, 1, 1, 1], "channels": [8, 24, 16, 16]}
    drawing = TimmEncoder("resnet18", levels=[0, 1, 2], options=options)
    model = GeoPixModel(encoder, connector, llm, tiny.TINY[DotDecoder], pixel_encoder=drawing).eval()
    batch = collate(samples()[:2])
    with torch.no_grad():
        seen = model.encode(batch.images)
        assert seen.visual.shape[1] == 8 * 8
        for features, expected in zip(seen.features, drawing(batch.images), strict=True):
            torch.testing.assert_close(features, expected)
        assert model(batch).drawing.mask_logits.shape[-2:] == (32, 32)
    with pytest.raises(ValueError, match="encoder reads 3 bands but pixel_encoder 4"):
        GeoPixModel(encoder, connector, llm, tiny.TINY[DotDecoder], pixel_encoder=TimmEncoder("resnet18", levels=[1], bands=4, options=options))


def test_runs_of_segmentation_tokens() -> None:
    ids = torch.tensor([[7, 8, 9, 7, 8, 1], [7, 7, 8, 9, 7, 8], [1, 2, 3, 4, 5, 6], [7, 8, 9, 7, 8, 9]])
    hidden = torch.arange(4 * 7.0).reshape(4, 7, 1)
    states, rows = gather_seg(ids, hidden, (7, 8, 9), own_state=False)
    assert rows.tolist() == [0, 1, 3, 3]
    assert states[..., 0].tolist() == [[0, 1, 2], [8, 9, 10], [21, 22, 23], [24, 25, 26]]
    own, _ = gather_seg(ids, hidden, (7, 8, 9), own_state=True)
    assert torch.equal(own, states + 1)
    for width in (0, 2):
        states, rows = gather_seg(ids[:, :width], hidden[:, : width + 1], (7, 8, 9), own_state=True)
        assert states.shape == (0, 3, 1)
        assert len(rows) == 0


# ---------------------------------------------------------------- without a decoder


def test_a_model_of_words_alone_reads_and_answers_but_draws_nothing() -> None:
    words = GeoPixModel(tiny.TINY[TimmEncoder](), tiny.TINY[MLPConnector], tiny.TINY[HFLanguageModel](), None)
    batch = collate([toys.sample(0, "vqa/presence", "caption/scene")])
    output = words(batch)
    assert len(output.drawing.mask_logits) == 0
    value, _ = loss_terms(output, batch.masks)["text"]
    value.backward()
    prediction = ask(words, batch)
    assert len(prediction.answers) == 2
    assert len(prediction.drawing.dialogue_index) == 0


def test_masks_without_a_decoder_are_refused() -> None:
    words = GeoPixModel(tiny.TINY[TimmEncoder](), tiny.TINY[MLPConnector], tiny.TINY[HFLanguageModel](), None)
    with pytest.raises(ValueError, match=r"1 masks and this model no mask decoder .*leave the family segment out of the task mix"):
        words(collate([toys.sample(0, "segment/single")]))
    with pytest.raises(ValueError, match="a memory and a pixel_encoder serve a mask decoder"):
        GeoPixModel(tiny.TINY[TimmEncoder](), tiny.TINY[MLPConnector], tiny.TINY[HFLanguageModel](), None, tiny.TINY[ClasswiseMemory])


def test_images_of_which_nothing_is_asked_give_no_loss_and_no_error() -> None:
    model = tiny.model(decoder=DotDecoder)
    silent = collate([replace(toys.sample(index, "vqa/presence"), dialogues=(), truth=None, unions=None) for index in range(2)])
    output = model(silent)
    assert output.logits.shape[0] == len(output.drawing.mask_logits) == 0
    assert all(int(count) == 0 and value.item() == 0 for value, count in loss_terms(output, silent.masks).values())


def test_sides_that_strides_do_not_divide_are_refused() -> None:
    model = tiny.model()
    with pytest.raises(ValueError, match=r"images of 60 x 60 px do not divide into the cells of TimmEncoder, whose strides are \(4, 8\).*size to 64"):
        model.encode(torch.rand(1, 3, 60, 60))


def test_a_language_model_in_bfloat16_draws_with_a_decoder_in_float32() -> None:
    llm = partial(HFLanguageModel, tiny.LLAMA, tokenizer=tiny.tokenizer(), dtype="bfloat16")
    for decoder in (DotDecoder, MultiScaleDecoder):
        model = GeoPixModel(tiny.TINY[TimmEncoder](), tiny.TINY[MLPConnector], llm(), tiny.TINY[decoder], tiny.TINY[ClasswiseMemory])
        assert model(collate(samples())).drawing.mask_logits.dtype == torch.float32
        assert ask(model.eval(), collate(samples())).drawing.mask_logits.dtype == torch.float32


def test_a_model_of_words_alone_writes_no_seg(monkeypatch: pytest.MonkeyPatch) -> None:
    model = GeoPixModel(tiny.TINY[TimmEncoder](), tiny.TINY[MLPConnector], tiny.TINY[HFLanguageModel](), None).eval()
    ids = [*model.llm.seg_ids, *model.llm.chat.encode(" yes")]
    written = torch.tensor([ids, ids])
    monkeypatch.setattr(model.llm, "generate", lambda embeds, attend, most: (written, torch.zeros(2, len(ids) + 1, model.llm.dim)))
    prediction = model.generate(model.encode(torch.rand(1, 3, 64, 64)), [["[vqa] ship?"], ["[vqa] plane?"]], torch.tensor([0, 0]))
    assert prediction.answers == (("yes",), ("yes",))
    assert len(prediction.drawing.mask_logits) == 0


def test_a_dialogue_that_is_too_long_names_its_images() -> None:
    model = tiny.model()
    model.llm.max_length = 20
    with pytest.raises(ValueError, match=r"at most max_length = 20 tokens.*The batch holds the images toy-0, toy-1, toy-2"):
        model(collate(samples()))


def test_where_its_own_answers_grow_too_long_the_rest_is_left_unanswered(model: GeoPixModel, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [["[segment] the ship?", "[vqa] and now?", "[vqa] again?"], ["[vqa] a plane?", "[vqa] and now?"]]
    seen, rows = model.encode(torch.rand(1, 3, 64, 64)), torch.tensor([0, 0])
    plain = model.generate(seen, prompts, rows, max_new_tokens=3)
    decode = model.llm.decode
    monkeypatch.setattr(model.llm, "decode", lambda ids: ["ship " * 300, *decode(ids)[1:]])
    monkeypatch.setattr(model.llm, "max_length", 300)
    prediction = model.generate(seen, prompts, rows, max_new_tokens=3)
    assert prediction.answers[0][1:] == ("", "")
    assert prediction.answers[1][0] == plain.answers[1][0]
    assert len(prediction.answers[1]) == 2
