"""The memory as the released code computes it: a scale, a layer norm, and nothing else."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from geopix.memory.as_released import AsReleasedMemory

INDEX = torch.tensor([0, 1, 1])


def test_each_cell_is_scaled_and_normalised() -> None:
    torch.manual_seed(0)
    memory = AsReleasedMemory((6, 6), 12)
    with torch.no_grad():
        for parameter in memory.parameters():
            parameter.normal_()
    features = torch.randn(2, 6, 3, 4)
    for level in (0, 1):
        refined = memory(features, INDEX, torch.randn(3, 9, 9), level, prompts=torch.randn(3, 6, 12), class_ids=torch.full((3,), -1))
        for mask, image in enumerate(INDEX):
            for row in range(3):
                for column in range(4):
                    cell = (1 + memory.scales[0]) * features[image, :, row, column]
                    centred = cell - cell.mean()
                    expected = centred / (centred.square().mean() + 1e-5).sqrt() * memory.norms[0].weight + memory.norms[0].bias
                    torch.testing.assert_close(refined[mask, :, row, column], expected)


def test_it_starts_as_the_release_does_and_all_levels_share_it() -> None:
    memory = AsReleasedMemory((256, 256), 4096)
    assert [tuple(parameter.shape) for parameter in memory.parameters()] == [(256,)] * 3
    features = torch.randn(1, 256, 2, 2)
    refined = memory(features, INDEX[:1], torch.zeros(1, 4, 4), 1, prompts=torch.zeros(1, 6, 4096), class_ids=torch.zeros(1, dtype=torch.long))
    expected = F.layer_norm((2.421 * features).permute(0, 2, 3, 1), (256,), eps=1e-5).permute(0, 3, 1, 2)
    torch.testing.assert_close(refined, expected)
    assert len(AsReleasedMemory((8, 4, 8), 12).scales) == 2, "levels of another width have their own"


def test_neither_first_mask_nor_prompt_nor_class_matters() -> None:
    memory = AsReleasedMemory((6,), 12, classes=("ship", "plane"))
    features, masks, prompts, class_ids = torch.randn(2, 6, 3, 4), torch.randn(3, 9, 9), torch.randn(3, 6, 12), torch.tensor([0, 1, -1])
    refined = memory(features, INDEX, masks, 0, prompts=prompts, class_ids=class_ids)
    assert torch.equal(refined, memory(features, INDEX, -masks, 0, prompts=-prompts, class_ids=class_ids.flip(0)))
    assert not torch.equal(refined, memory(-features, INDEX, masks, 0, prompts=prompts, class_ids=class_ids))
    assert memory.classify(prompts).shape == (3, 2)
    assert AsReleasedMemory((6,), 12).classify(prompts).shape == (3, 0)
