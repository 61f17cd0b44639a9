"""The low-rank memory: few numbers per class, and what reaches the features."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from geopix.memory.classwise import ClasswiseMemory
from geopix.memory.low_rank import LowRankMemory

PROMPT_DIM = 12
NAMES = ("ship", "plane", "harbor")
INDEX = torch.tensor([0, 0, 1])
KNOWN = torch.tensor([0, 2, 1])
UNKNOWN = torch.full((3,), -1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def make(classes: tuple[str, ...] = NAMES) -> LowRankMemory:
    return LowRankMemory((16, 8), PROMPT_DIM, classes=classes, rank=2, slots=4, dim=16, heads=2, ffn=32, grid=8)


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(2, 16, 8, 8), 3 * torch.randn(3, 16, 16), torch.randn(3, 6, PROMPT_DIM)


def test_first_mask_class_prompt_factors_and_basis_reach_the_features() -> None:
    memory = make()
    features, masks, prompts = inputs()
    known = memory(features, INDEX, masks, 0, prompts=prompts, class_ids=KNOWN)
    soft = memory(features, INDEX, masks, 0, prompts=prompts, class_ids=UNKNOWN)
    changed = {
        "first mask": memory(features, INDEX, -masks, 0, prompts=prompts, class_ids=KNOWN) - known,
        "class": memory(features, INDEX, masks, 0, prompts=prompts, class_ids=KNOWN.roll(1)) - known,
        "prompt": memory(features, INDEX, masks, 0, prompts=prompts.flip(0), class_ids=UNKNOWN) - soft,
    }
    for name in ("factors", "basis"):
        parameter = memory.get_parameter(name)
        with torch.no_grad():
            parameter.neg_()
            changed[name] = memory(features, INDEX, masks, 0, prompts=prompts, class_ids=KNOWN) - known
            parameter.neg_()
    for name, difference in changed.items():
        assert difference.abs().amax() > 1e-3, name
    assert torch.equal(memory(features, INDEX, masks, 0, prompts=prompts.flip(0), class_ids=KNOWN), known), "a named class is read whatever the prompt"


@pytest.mark.parametrize("classes", [NAMES, ()])
def test_every_parameter_learns(classes: tuple[str, ...]) -> None:
    memory = make(classes)
    features, masks, prompts = inputs()
    total = memory(features, INDEX, masks, 0, prompts=prompts, class_ids=UNKNOWN).square().sum()
    (total + memory(torch.randn(2, 8, 8, 8), INDEX, masks, 1, prompts=prompts, class_ids=UNKNOWN).square().sum()).backward()
    assert not [name for name, parameter in memory.named_parameters() if parameter.grad is None or not parameter.grad.abs().sum() > 0]


def test_a_named_class_trains_its_own_factors_and_the_shared_basis() -> None:
    memory = make()
    features, masks, prompts = inputs()
    memory(features, INDEX, masks, 0, prompts=prompts, class_ids=torch.full((3,), 2)).square().sum().backward()
    assert memory.factors.grad is not None
    assert memory.factors.grad.abs().amax(dim=(1, 2)).gt(0).tolist() == [False, False, True]
    assert memory.basis.grad is not None
    assert (memory.basis.grad[0].abs().amax(-1) > 0).all()


def test_it_is_a_class_wise_memory_whose_bank_has_low_rank() -> None:
    low, full = make(), ClasswiseMemory((16, 8), PROMPT_DIM, classes=NAMES, slots=4, dim=16, heads=2, ffn=32, grid=8)
    bank = torch.einsum("plr,lrsd->plsd", low.factors, low.basis)
    assert torch.linalg.matrix_rank(bank[:, 0].flatten(1)) == 2
    rest = {name.removeprefix("reader."): value for name, value in low.state_dict().items() if name not in ("factors", "basis")}
    full.load_state_dict({**rest, "bank": bank})
    features, masks, prompts = inputs()
    for class_ids in (KNOWN, UNKNOWN):
        one, two = (memory(features, INDEX, masks, 0, prompts=prompts, class_ids=class_ids) for memory in (low, full))
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def test_the_number_of_parameters_is_as_stated() -> None:
    memory = LowRankMemory((256, 256), 64, classes=[f"class {index}" for index in range(75)])
    assert memory.factors.numel() + memory.basis.numel() == 2 * 8 * (75 + 64 * 64) == 66_736
    assert ClasswiseMemory((256, 256), 64, classes=memory.classes).bank.numel() == 614_400


def test_clear_errors() -> None:
    with pytest.raises(ValueError, match="must be at least 1; found 0"):
        LowRankMemory((8,), PROMPT_DIM, classes=NAMES, rank=0)
    with pytest.raises(ValueError, match="more than once: \\['ship'\\]"):
        LowRankMemory((8,), PROMPT_DIM, classes=("ship", "ship"))
    with pytest.raises(ValueError, match="multiple of its 3 heads"):
        LowRankMemory((8,), PROMPT_DIM, classes=(), dim=16, heads=3)
