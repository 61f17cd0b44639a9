"""The language-keyed memory: names are its keys, so other names need no other weights."""

from __future__ import annotations

import copy
import io
from functools import partial

import pytest
import torch
from torch import Tensor

from geopix.checkpoint import CheckpointError
from geopix.connectors.mlp import MLPConnector
from geopix.contracts import Memory
from geopix.data.source import collate
from geopix.decoders.dot import DotDecoder
from geopix.encoders.timm import TimmEncoder
from geopix.llms.hf import HFLanguageModel
from geopix.memory.classwise import ClasswiseMemory
from geopix.memory.language_keyed import LanguageKeyedMemory
from geopix.model import GeoPixModel
from geopix.task import GeoPixTask
from tests import tiny, toys

PROMPT_DIM = 12
NAMES = ("ship", "plane", "harbor")
INDEX = torch.tensor([0, 0, 1])
KNOWN = torch.tensor([0, 2, 1])
UNKNOWN = torch.full((3,), -1)
WORDS = {name: torch.randn(PROMPT_DIM, generator=torch.Generator().manual_seed(row)) for row, name in enumerate(("ship", "plane", "harbor", "tanker"))}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def embed_words(texts: tuple[str, ...]) -> Tensor:
    return torch.stack([WORDS[text] for text in texts])


def make(classes: tuple[str, ...] = NAMES) -> LanguageKeyedMemory:
    memory = LanguageKeyedMemory((16, 8), PROMPT_DIM, classes=classes, groups=5, slots=4, dim=16, heads=2, ffn=32, grid=8)
    memory.know_names(embed_words)
    return memory


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(2, 16, 8, 8), 3 * torch.randn(3, 16, 16), torch.randn(3, 6, PROMPT_DIM)


def test_first_mask_class_name_prompt_and_bank_reach_the_features() -> None:
    memory = make()
    features, masks, prompts = inputs()
    known = memory(features, INDEX, masks, 0, prompts=prompts, class_ids=KNOWN)
    soft = memory(features, INDEX, masks, 0, prompts=prompts, class_ids=UNKNOWN)
    changed = {
        "first mask": memory(features, INDEX, -masks, 0, prompts=prompts, class_ids=KNOWN) - known,
        "class": memory(features, INDEX, masks, 0, prompts=prompts, class_ids=KNOWN.roll(1)) - known,
        "prompt": memory(features, INDEX, masks, 0, prompts=prompts.flip(0), class_ids=UNKNOWN) - soft,
    }
    memory.know_names(lambda texts: -embed_words(texts))
    changed["names"] = memory(features, INDEX, masks, 0, prompts=prompts, class_ids=KNOWN) - known
    memory.know_names(embed_words)
    with torch.no_grad():
        memory.bank.neg_()
    changed["bank"] = memory(features, INDEX, masks, 0, prompts=prompts, class_ids=KNOWN) - known
    for name, difference in changed.items():
        assert difference.abs().amax() > 1e-3, name


def test_every_parameter_learns() -> None:
    memory = make()
    features, masks, prompts = inputs()
    total = memory(features, INDEX, masks, 0, prompts=prompts, class_ids=UNKNOWN).square().sum()
    (total + memory(torch.randn(2, 8, 8, 8), INDEX, masks, 1, prompts=prompts, class_ids=UNKNOWN).square().sum()).backward()
    assert not [name for name, parameter in memory.named_parameters() if parameter.grad is None or not parameter.grad.abs().sum() > 0]


def test_other_names_take_the_same_weights() -> None:
    three, four = make(), make((*NAMES, "tanker"))
    assert {name: value.shape for name, value in three.state_dict().items()} == {name: value.shape for name, value in four.state_dict().items()}
    stored = io.BytesIO()
    torch.save(three.state_dict(), stored)
    stored.seek(0)
    four.load_state_dict(torch.load(stored, weights_only=True))
    features, masks, prompts = inputs()
    one, two = (memory(features, INDEX, masks, 0, prompts=prompts, class_ids=KNOWN) for memory in (three, four))
    torch.testing.assert_close(one, two)
    torch.testing.assert_close(four.classify(prompts)[:, :3], three.classify(prompts))
    new = four(features, INDEX, masks, 0, prompts=prompts, class_ids=torch.full((3,), 3))
    for old in range(3):
        assert (new - four(features, INDEX, masks, 0, prompts=prompts, class_ids=torch.full((3,), old))).abs().amax() > 2e-4


def test_names_of_like_embedding_read_alike() -> None:
    memory = make(("ship", "tanker"))
    memory.know_names(lambda texts: torch.stack([WORDS["ship"], WORDS["ship"] + 1e-6]))
    features, masks, prompts = inputs()
    one, two = (memory(features, INDEX, masks, 0, prompts=prompts, class_ids=torch.full((3,), row)) for row in (0, 1))
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


def test_a_model_asks_its_language_model_for_the_names() -> None:
    def model(*classes: str) -> GeoPixModel:
        memory = partial(LanguageKeyedMemory, classes=classes, groups=4, slots=3, dim=8, heads=2, ffn=16, grid=8)
        return GeoPixModel(tiny.TINY[tiny.TimmEncoder](), tiny.TINY[tiny.MLPConnector], tiny.TINY[tiny.HFLanguageModel](), tiny.TINY[tiny.DotDecoder], memory)

    three, four = model("ship", "plane", "building"), model("ship", "plane", "building", "large red ship")
    four.load_state_dict(three.state_dict())
    batch = collate([toys.sample(0, "segment/multi", "segment/single")])
    named = torch.ones(3, dtype=torch.bool)
    outputs = [net(batch, named) for net in (three, four)]
    torch.testing.assert_close(outputs[0].drawing.mask_logits, outputs[1].drawing.mask_logits)
    assert [output.drawing.class_logits.shape for output in outputs] == [(3, 3), (3, 4)]
    outputs[1].drawing.class_logits.square().sum().backward()
    assert four.memory.names.shape == (4, four.llm.dim)
    torch.testing.assert_close(four.memory.names[3], four.llm.embed_words(["large red ship"])[0])
    copy.deepcopy(four)
    before = outputs[1].drawing.mask_logits.detach()
    with torch.no_grad():
        four.llm.lm.get_input_embeddings().weight.copy_(torch.randn_like(four.llm.lm.get_input_embeddings().weight))
        assert not torch.equal(four(batch, named).drawing.mask_logits, before), "the words that are known now are read"


def test_clear_errors() -> None:
    with pytest.raises(ValueError, match="name at least one class"):
        LanguageKeyedMemory((8,), PROMPT_DIM, classes=())
    memory = LanguageKeyedMemory((8,), PROMPT_DIM, classes=NAMES)
    with pytest.raises(RuntimeError, match="know_names"):
        memory.classify(torch.zeros(1, 1, PROMPT_DIM))
    llm = tiny.TINY[tiny.HFLanguageModel]()
    with pytest.raises(ValueError, match=r"found \['ship', ' '\], expected words in each text"):
        llm.embed_words(["ship", " "])


def saved(task: GeoPixTask) -> dict[str, object]:
    checkpoint: dict[str, object] = {"state_dict": task.state_dict()}
    task.on_save_checkpoint(checkpoint)
    return checkpoint


def task_of(memory: type[Memory], classes: tuple[str, ...]) -> GeoPixTask:
    parts = tiny.TINY
    kept = partial(memory, classes=classes, slots=4, dim=8, heads=2, ffn=16, grid=8)
    return GeoPixTask(GeoPixModel(parts[TimmEncoder](), parts[MLPConnector], parts[HFLanguageModel](), parts[DotDecoder], kept))


def test_a_checkpoint_of_other_names_is_taken_here_and_refused_where_rows_are_classes() -> None:
    task_of(LanguageKeyedMemory, (*NAMES, "tanker")).on_load_checkpoint(saved(task_of(LanguageKeyedMemory, NAMES)))
    with pytest.raises(CheckpointError, match="classes"):
        task_of(ClasswiseMemory, ("ship", "tanker", "harbor")).on_load_checkpoint(saved(task_of(ClasswiseMemory, NAMES)))
