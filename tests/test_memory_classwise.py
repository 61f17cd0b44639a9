"""The class-wise memory: what reaches the features, who reads whose slots, and what it costs."""

from __future__ import annotations

import io
from functools import partial

import pytest
import torch
from torch import Tensor

from geopix.decoders.multi_scale import MultiScaleDecoder
from geopix.memory.classwise import ClasswiseMemory
from geopix.memory.reading import attended, plain_attention

PROMPT_DIM = 12
NAMES = ("ship", "plane", "harbor")
INDEX = torch.tensor([0, 0, 1])
KNOWN = torch.tensor([0, 2, 1])
UNKNOWN = torch.full((3,), -1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def make(classes: tuple[str, ...] = NAMES, grid: int = 8) -> ClasswiseMemory:
    return ClasswiseMemory((16, 8), PROMPT_DIM, classes=classes, slots=4, dim=16, heads=2, ffn=32, grid=grid)


def inputs(m: int = 3, b: int = 2, size: tuple[int, int] = (8, 8)) -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(b, 16, *size), 3 * torch.randn(m, 2 * size[0], 2 * size[1]), torch.randn(m, 6, PROMPT_DIM)


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (20, 12)])
@pytest.mark.parametrize("classes", [NAMES, ()])
def test_shapes(size: tuple[int, int], classes: tuple[str, ...]) -> None:
    memory = make(classes)
    features, masks, prompts = inputs(size=size)
    assert memory(features, INDEX, masks, 0, prompts=prompts, class_ids=UNKNOWN).shape == (3, 16, *size)
    assert memory.classify(prompts).shape == (3, len(classes))


@pytest.mark.parametrize("classes", [NAMES, ()])
def test_no_masks(classes: tuple[str, ...]) -> None:
    memory = make(classes)
    features, masks, prompts = inputs(m=0, b=1)
    none = torch.zeros(0, dtype=torch.long)
    refined = memory(features, none, masks, 0, prompts=prompts, class_ids=none)
    assert refined.shape == (0, 16, 8, 8)
    refined.sum().backward()


@pytest.mark.parametrize("classes", [NAMES, ()])
def test_every_parameter_learns(classes: tuple[str, ...]) -> None:
    memory = make(classes)
    features, masks, prompts = inputs()
    total = memory(features, INDEX, masks, 0, prompts=prompts, class_ids=UNKNOWN).square().sum()
    total = total + memory(torch.randn(2, 8, 8, 8), INDEX, masks, 1, prompts=prompts, class_ids=UNKNOWN).square().sum()
    total.backward()
    dead = [name for name, parameter in memory.named_parameters() if parameter.grad is None or not parameter.grad.abs().sum() > 0]
    assert not dead
    assert memory.bank.grad is not None
    assert (memory.bank.grad.abs().amax(-1) > 0).all()


def test_a_named_class_trains_its_own_slots_only_and_no_classifier() -> None:
    memory = make()
    features, masks, prompts = inputs()
    memory(features, INDEX, masks, 0, prompts=prompts, class_ids=torch.full((3,), 2)).square().sum().backward()
    assert memory.bank.grad is not None
    assert memory.bank.grad.abs().amax(dim=(1, 2, 3)).gt(0).tolist() == [False, False, True]
    assert memory.bank.grad[:, 1].abs().sum() == 0
    assert memory.classifier is not None
    assert memory.classifier[1].weight.grad.abs().sum() == 0


def test_an_unknown_class_trains_the_classifier() -> None:
    memory = make()
    features, masks, prompts = inputs()
    memory(features, INDEX, masks, 0, prompts=prompts, class_ids=UNKNOWN).square().sum().backward()
    assert memory.classifier is not None
    assert memory.classifier[1].weight.grad.abs().sum() > 0


def test_first_mask_class_slots_and_prompt_reach_the_features() -> None:
    memory = make()
    features, masks, prompts = inputs()
    known = memory(features, INDEX, masks, 0, prompts=prompts, class_ids=KNOWN)
    soft = memory(features, INDEX, masks, 0, prompts=prompts, class_ids=UNKNOWN)
    changed = {
        "first mask": memory(features, INDEX, -masks, 0, prompts=prompts, class_ids=KNOWN) - known,
        "class": memory(features, INDEX, masks, 0, prompts=prompts, class_ids=KNOWN.flip(0).roll(1)) - known,
        "prompt": memory(features, INDEX, masks, 0, prompts=prompts.flip(0), class_ids=UNKNOWN) - soft,
    }
    with torch.no_grad():
        memory.bank.mul_(-1)
    changed["slots"] = memory(features, INDEX, masks, 0, prompts=prompts, class_ids=KNOWN) - known
    for name, difference in changed.items():
        assert difference.abs().amax() > 1e-3, name


def test_one_cell_of_the_first_mask_matters_far_away() -> None:
    memory = make()
    features, masks, prompts = inputs(size=(16, 16))
    masks[:, 0, 0] = -5
    before = memory(features, INDEX, masks, 0, prompts=prompts, class_ids=KNOWN)
    masks[:, :2, :2] = 5
    after = memory(features, INDEX, masks, 0, prompts=prompts, class_ids=KNOWN)
    assert (after - before)[:, :, -1, -1].abs().amax() > 1e-6


def test_at_first_features_change_little() -> None:
    memory = make()
    features, masks, prompts = inputs()
    change = memory(features, INDEX, masks, 0, prompts=prompts, class_ids=KNOWN) - features[INDEX]
    assert 1e-3 < change.std() < 0.2 * features.std()


@pytest.mark.parametrize("class_ids", [KNOWN, UNKNOWN, torch.tensor([1, -1, 0])])
def test_the_order_of_classes_does_not_matter(class_ids: Tensor) -> None:
    order = [2, 0, 1]
    memory, permuted = make(), make(tuple(NAMES[old] for old in order))
    state = memory.state_dict()
    for name in ("bank", "classifier.1.weight", "classifier.1.bias"):
        state[name] = state[name][order]
    permuted.load_state_dict(state)
    new_ids = torch.tensor([order.index(old) if old >= 0 else -1 for old in class_ids.tolist()])
    features, masks, prompts = inputs()
    expected = memory(features, INDEX, masks, 0, prompts=prompts, class_ids=class_ids)
    torch.testing.assert_close(permuted(features, INDEX, masks, 0, prompts=prompts, class_ids=new_ids), expected)


def test_batch_neighbours_do_not_matter() -> None:
    memory = make()
    features, masks, prompts = inputs()
    together = memory(features, INDEX, masks, 0, prompts=prompts, class_ids=KNOWN)
    alone = memory(features[1:], torch.tensor([0]), masks[2:], 0, prompts=prompts[2:], class_ids=KNOWN[2:])
    torch.testing.assert_close(together[2:], alone, atol=1e-5, rtol=1e-4)


def test_few_and_many_keys_are_read_alike() -> None:
    q, k, v = torch.randn(3, 2, 2, 5, 4).unbind()
    torch.testing.assert_close(plain_attention(q, k, v), torch.nn.functional.scaled_dot_product_attention(q, k, v))


def test_large_maps_attend_on_a_grid_of_bounded_size() -> None:
    memory = make(grid=4)
    features, masks, prompts = inputs(size=(16, 8))
    refined = memory(features, INDEX, masks, 0, prompts=prompts, class_ids=KNOWN)
    assert attended((16, 8), memory.grid) == (4, 2)
    assert refined.shape == (3, 16, 16, 8)


def test_a_sixty_fourth_of_the_released_parameters() -> None:
    memory = ClasswiseMemory((256, 256), 4096, classes=[f"class {index}" for index in range(75)])
    assert memory.bank.shape == (75, 2, 64, 64)
    assert sum(parameter.numel() for parameter in memory.parameters()) < 629_145_600 / 64
    assert not list(memory.buffers())


def test_clear_errors() -> None:
    with pytest.raises(ValueError, match="more than once: \\['ship'\\]"):
        make(("ship", "plane", "ship"))
    with pytest.raises(ValueError, match="multiple of its 3 heads"):
        ClasswiseMemory((8,), PROMPT_DIM, classes=(), dim=16, heads=3)


def test_save_and_load() -> None:
    memory, other = make(), make()
    features, masks, prompts = inputs()
    stored = io.BytesIO()
    torch.save(memory.state_dict(), stored)
    stored.seek(0)
    other.load_state_dict(torch.load(stored, weights_only=True))
    refined = [part(features, INDEX, masks, 0, prompts=prompts, class_ids=UNKNOWN) for part in (memory, other)]
    torch.testing.assert_close(*refined)


def test_bf16_autocast_inside_the_decoder_that_asks_twice() -> None:
    decoder = MultiScaleDecoder((10,), PROMPT_DIM, dim=16, neck_dim=8, grid=8, heads=2, mlp_dim=16)
    memory = ClasswiseMemory(decoder.memory_channels, PROMPT_DIM, classes=NAMES, slots=4, dim=16, heads=2, ffn=16, grid=8)
    maps, prompts = [torch.randn(2, 10, 8, 8)], torch.randn(3, 6, PROMPT_DIM)
    with torch.autocast("cpu", torch.bfloat16):
        drawing = decoder(maps, prompts, INDEX, partial(memory, prompts=prompts, class_ids=torch.tensor([-1, 0, 1])))
    (drawing.mask_logits.float().square().sum() + drawing.quality.float().sum() + drawing.where.float().square().sum()).backward()
    assert drawing.mask_logits.isfinite().all()
    assert not [name for part in (decoder, memory) for name, parameter in part.named_parameters() if parameter.grad is None]
