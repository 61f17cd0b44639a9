"""The retrieval memory: what is stored, what is found, and what reaches the features."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from geopix.memory.retrieval import InstanceBank, RetrievalMemory

PROMPT_DIM = 12
NAMES = ("ship", "plane", "harbor")
INDEX = torch.tensor([0, 0, 1])
KNOWN = torch.tensor([0, 1, 0])
UNKNOWN = torch.full((3,), -1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def make(classes: tuple[str, ...] = NAMES, *, size: int = 12, nearest: int = 2, per_step: int = 8) -> RetrievalMemory:
    settings = {"size": size, "nearest": nearest, "per_step": per_step}
    return RetrievalMemory((16, 8), PROMPT_DIM, classes=classes, **settings, dim=16, heads=2, ffn=32, grid=8)


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(2, 16, 8, 8), 3 * torch.randn(3, 16, 16), torch.randn(3, 6, PROMPT_DIM)


def filled(classes: tuple[str, ...] = NAMES) -> RetrievalMemory:
    """A memory that holds six ships and three planes, at both levels."""
    memory = make(classes)
    for _ in range(3):
        memory.observe({0: torch.randn(2, 16, 8, 8), 1: torch.randn(2, 8, 8, 8)}, INDEX, torch.rand(3, 32, 32) > 0.5, KNOWN)
    return memory


def test_the_newest_replace_the_oldest() -> None:
    bank = InstanceBank(4, 1)
    for batch in ([1, 2, 3], [], [4, 5, 6], [7, 8, 9, 10, 11, 12]):
        bank.add(torch.tensor(batch, dtype=torch.float32)[:, None], torch.tensor(batch, dtype=torch.long))
        assert bank.filled.sum() == min(4, bank.count)
    assert sorted(bank.features[:, 0].tolist()) == sorted(bank.class_ids.tolist()) == [9, 10, 11, 12]
    assert bank.count == 12
    bank.add(torch.tensor([[13.0]]), torch.tensor([13]))
    assert sorted(bank.class_ids.tolist()) == [10, 11, 12, 13]


def test_objects_are_stored_as_their_mean_features_with_their_class() -> None:
    memory = make()
    features = torch.arange(2.0)[:, None, None, None] * torch.ones(2, 16, 4, 4)
    masks = torch.ones(4, 8, 8, dtype=torch.bool)
    masks[3] = False  # nothing there, nothing stored
    memory.observe({0: features}, torch.tensor([0, 1, 1, 0]), masks, torch.tensor([2, 1, -1, 0]))
    bank = memory.banks[0]
    assert bank.count == 3
    assert sorted(zip(bank.class_ids[:3].tolist(), bank.features[:3, 0].tolist(), strict=True)) == [(-1, 1.0), (1, 1.0), (2, 0.0)]
    assert memory.banks[1].count == 0, "a level that was not offered has seen nothing"


def test_a_step_adds_a_bounded_number_of_instances() -> None:
    memory = make(size=64, per_step=4)
    seen = set()
    for _ in range(6):
        memory.observe({0: torch.randn(1, 16, 4, 4)}, torch.zeros(20, dtype=torch.long), torch.ones(20, 8, 8, dtype=torch.bool), torch.arange(20))
        seen |= set(memory.banks[0].class_ids[memory.banks[0].filled].tolist())
    assert memory.banks[0].count == 24
    assert len(seen) > 8, "drawn at random, not the first ones"
    none = torch.zeros(0, dtype=torch.long)
    memory.observe({0: torch.randn(1, 16, 4, 4)}, none, torch.zeros(0, 8, 8, dtype=torch.bool), none)
    memory.observe({}, INDEX, torch.ones(3, 8, 8, dtype=torch.bool), KNOWN)
    assert memory.banks[0].count == 24


def test_an_empty_bank_leaves_the_features_unchanged() -> None:
    memory = make()
    features, masks, prompts = inputs()
    for class_ids in (KNOWN, UNKNOWN):
        assert torch.equal(memory(features, INDEX, masks, 0, prompts=prompts, class_ids=class_ids), features[INDEX])
    memory = filled()
    refined = memory(features, INDEX, masks, 0, prompts=prompts, class_ids=torch.tensor([2, 0, 2]))
    assert torch.equal(refined[[0, 2]], features[INDEX[[0, 2]]]), "no harbor was ever stored"
    assert not torch.equal(refined[1], features[INDEX[1]])


def test_the_most_similar_instances_of_the_class_are_read() -> None:
    memory = make(nearest=1)
    features, masks, prompts = inputs()
    like = torch.zeros(16)
    like[0] = 1.0
    features[:, 0] += 10.0  # what lies under any mask points along the first axis
    stored = torch.stack([like, -like, like + 0.1, torch.ones(16)])
    memory.banks[0].add(stored, torch.tensor([0, 0, 1, 1]))

    def read(class_ids: Tensor) -> Tensor:
        return memory(features, INDEX, masks, 0, prompts=prompts, class_ids=class_ids)

    ship, plane = read(torch.zeros(3, dtype=torch.long)), read(torch.ones(3, dtype=torch.long))
    unread = torch.tensor([1, 3])
    memory.banks[0].features[unread] *= 0.5  # the cosine stays
    assert torch.equal(read(torch.zeros(3, dtype=torch.long)), ship)
    assert torch.equal(read(torch.ones(3, dtype=torch.long)), plane)
    memory.banks[0].features[0] += 0.2
    assert not torch.equal(read(torch.zeros(3, dtype=torch.long)), ship)
    assert torch.equal(read(torch.ones(3, dtype=torch.long)), plane)


def test_first_mask_class_prompt_and_bank_reach_the_features() -> None:
    memory = filled()
    features, masks, prompts = inputs()
    known = memory(features, INDEX, masks, 0, prompts=prompts, class_ids=KNOWN)
    soft = memory(features, INDEX, masks, 0, prompts=prompts, class_ids=UNKNOWN)
    changed = {
        "first mask": memory(features, INDEX, -masks, 0, prompts=prompts, class_ids=KNOWN) - known,
        "class": memory(features, INDEX, masks, 0, prompts=prompts, class_ids=1 - KNOWN) - known,
        "prompt": memory(features, INDEX, masks, 0, prompts=5 * prompts.flip(0), class_ids=UNKNOWN) - soft,
    }
    with torch.no_grad():
        memory.banks[0].features.neg_()
    changed["bank"] = memory(features, INDEX, masks, 0, prompts=prompts, class_ids=KNOWN) - known
    for name, difference in changed.items():
        assert difference.abs().amax() > 1e-3, name


def test_instances_of_unknown_class_are_read_by_any() -> None:
    memory = make()
    features, masks, prompts = inputs()
    memory.banks[0].add(torch.randn(1, 16), torch.tensor([-1]))
    assert not torch.equal(memory(features, INDEX, masks, 0, prompts=prompts, class_ids=KNOWN), features[INDEX])


@pytest.mark.parametrize("classes", [NAMES, ()])
def test_every_parameter_learns_though_the_bank_moves_before_the_backward_pass(classes: tuple[str, ...]) -> None:
    memory = filled(classes)
    features, masks, prompts = inputs()
    maps = {0: features, 1: torch.randn(2, 8, 8, 8)}
    total = sum(memory(each, INDEX, masks, level, prompts=prompts, class_ids=UNKNOWN).square().sum() for level, each in maps.items())
    memory.observe(maps, INDEX, masks > 0, KNOWN)
    total.backward()
    assert not [name for name, parameter in memory.named_parameters() if parameter.grad is None or not parameter.grad.abs().sum() > 0]
    assert all(parameter.grad.isfinite().all() for parameter in memory.parameters())


def test_clear_errors() -> None:
    with pytest.raises(ValueError, match="positive numbers; found size=0"):
        make(size=0)
    with pytest.raises(ValueError, match="more than once: \\['ship'\\]"):
        make(("ship", "ship"))
