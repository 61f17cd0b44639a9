"""The prototype memory: what is counted, what is read, and that a class never seen does nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from geopix.memory.prototype import PrototypeMemory

PROMPT_DIM = 12
NAMES = ("ship", "plane", "harbor")
INDEX = torch.tensor([0, 0, 1])
KNOWN = torch.tensor([0, 1, 0])
UNKNOWN = torch.full((3,), -1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def make(classes: tuple[str, ...] = NAMES, momentum: float = 0.9) -> PrototypeMemory:
    return PrototypeMemory((16, 8), PROMPT_DIM, classes=classes, momentum=momentum, dim=16, heads=2, ffn=32, grid=8)


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(2, 16, 8, 8), 3 * torch.randn(3, 16, 16), torch.randn(3, 6, PROMPT_DIM)


def filled(classes: tuple[str, ...] = NAMES) -> PrototypeMemory:
    """A memory that has seen ships and planes, at both levels."""
    memory = make(classes)
    memory.observe({0: torch.randn(2, 16, 8, 8), 1: torch.randn(2, 8, 8, 8)}, INDEX, torch.rand(3, 32, 32) > 0.5, KNOWN)
    return memory


def constant(value: float, count: int = 1) -> tuple[dict[int, Tensor], Tensor, Tensor]:
    """One image of one value, with the masks of ``count`` objects in it."""
    return {0: torch.full((1, 16, 4, 4), value)}, torch.zeros(count, dtype=torch.long), torch.ones(count, 8, 8, dtype=torch.bool)


def test_the_first_objects_of_a_class_become_its_prototype() -> None:
    memory = make()
    features = torch.zeros(2, 16, 4, 4)
    features[0, :, :2] = 1.0
    features[0, :, 2:] = 9.0
    features[1] = 4.0
    masks = torch.zeros(4, 8, 8, dtype=torch.bool)
    masks[0, :4] = masks[1, 4:] = masks[2] = True  # the fourth is empty
    memory.observe({0: features}, torch.tensor([0, 0, 1, 1]), masks, torch.tensor([0, 0, 0, 1]))
    assert memory.prototypes[0].counts.tolist() == [3, 0, 0]
    torch.testing.assert_close(memory.prototypes[0].means[0], torch.full((16,), (1 + 9 + 4) / 3))
    assert memory.prototypes[1].counts.tolist() == [0, 0, 0], "a level that was not offered has seen nothing"


def test_later_objects_move_it_by_their_share_and_then_by_momentum() -> None:
    memory = make(momentum=0.9)
    for value, count in [(1.0, 1), (4.0, 2)]:
        memory.observe(*constant(value, count), torch.zeros(count, dtype=torch.long))
    torch.testing.assert_close(memory.prototypes[0].means[0], torch.full((16,), 3.0))  # the plain mean of 1, 4, 4
    memory.observe(*constant(3.0, 197), torch.zeros(197, dtype=torch.long))
    memory.observe(*constant(13.0, 2), torch.zeros(2, dtype=torch.long))
    torch.testing.assert_close(memory.prototypes[0].means[0], torch.full((16,), 3.0 + (1 - 0.9**2) * 10))
    assert memory.prototypes[0].counts.tolist() == [202, 0, 0]


def test_objects_of_unknown_class_are_stored_only_where_there_are_no_classes() -> None:
    for classes, counts in [(NAMES, [0, 0, 0]), ((), [3])]:
        memory = make(classes)
        memory.observe(*constant(2.0, 3), UNKNOWN)
        assert memory.prototypes[0].counts.tolist() == counts


def test_nothing_to_see() -> None:
    memory = filled()
    before = {name: value.clone() for name, value in memory.state_dict().items()}
    none = torch.zeros(0, dtype=torch.long)
    memory.observe({0: torch.randn(2, 16, 8, 8)}, none, torch.zeros(0, 16, 16, dtype=torch.bool), none)
    memory.observe({}, INDEX, torch.ones(3, 16, 16, dtype=torch.bool), KNOWN)
    assert all(torch.equal(value, before[name]) for name, value in memory.state_dict().items())


def test_a_class_never_seen_contributes_nothing() -> None:
    memory = filled()
    features, masks, prompts = inputs()
    refined = memory(features, INDEX, masks, 0, prompts=prompts, class_ids=torch.tensor([2, 0, 2]))
    assert torch.equal(refined[[0, 2]], features[INDEX[[0, 2]]])
    assert not torch.equal(refined[1], features[INDEX[1]])
    soft = memory(features, INDEX, masks, 0, prompts=prompts, class_ids=UNKNOWN)
    with torch.no_grad():
        memory.prototypes[0].means[2] = 100.0  # what stands in a row that was never filled
    assert torch.equal(memory(features, INDEX, masks, 0, prompts=prompts, class_ids=UNKNOWN), soft)
    assert torch.equal(make()(features, INDEX, masks, 0, prompts=prompts, class_ids=UNKNOWN), features[INDEX]), "a new memory changes nothing"


def test_first_mask_class_prompt_and_prototypes_reach_the_features() -> None:
    memory = filled()
    features, masks, prompts = inputs()
    known = memory(features, INDEX, masks, 0, prompts=prompts, class_ids=KNOWN)
    soft = memory(features, INDEX, masks, 0, prompts=prompts, class_ids=UNKNOWN)
    changed = {
        "first mask": memory(features, INDEX, -masks, 0, prompts=prompts, class_ids=KNOWN) - known,
        "class": memory(features, INDEX, masks, 0, prompts=prompts, class_ids=1 - KNOWN) - known,
        "prompt": memory(features, INDEX, masks, 0, prompts=prompts.flip(0), class_ids=UNKNOWN) - soft,
    }
    with torch.no_grad():
        memory.prototypes[0].means.neg_()
    changed["prototypes"] = memory(features, INDEX, masks, 0, prompts=prompts, class_ids=KNOWN) - known
    for name, difference in changed.items():
        assert difference.abs().amax() > 1e-3, name


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


def test_gradients_stay_finite_when_a_prompt_is_sure() -> None:
    memory = filled()
    features, masks, prompts = inputs()
    with torch.no_grad():
        memory.classifier[1].bias.copy_(torch.tensor([500.0, -500.0, 0.0]))
    memory(features, INDEX, masks, 0, prompts=prompts, class_ids=torch.tensor([-1, 2, 0])).square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in memory.parameters() if parameter.grad is not None)


def test_clear_errors() -> None:
    with pytest.raises(ValueError, match=r"must be in 0\.\.1; found 1\.5"):
        make(momentum=1.5)
    with pytest.raises(ValueError, match="more than once: \\['ship'\\]"):
        make(("ship", "ship"))
