"""U-Net, FPN and UPerNet of segmentation_models_pytorch: fed as they expect, conditioned by prompts, for any maps and sizes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from segmentation_models_pytorch.decoders.fpn.decoder import FPNDecoder as FPNBody
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder as UNetBody
from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder as UPerNetBody
from torch import Tensor, nn

from geopix.contracts import MaskDecoder
from geopix.decoders.unet import FPNDecoder, UNetDecoder, UPerNetDecoder, prepare

CHANNELS = (6, 8, 12, 16, 20)
PROMPT_DIM = 24
INDEX = torch.tensor([0, 0, 1])
Maker = Callable[..., MaskDecoder]


def unet(channels: tuple[int, ...], upsamples: int = 1) -> UNetDecoder:
    return UNetDecoder(channels, PROMPT_DIM, dim=32, min_dim=8, upsamples=upsamples, pixel_dim=8, hidden=16)


def fpn(channels: tuple[int, ...], dropout: float = 0.0) -> FPNDecoder:
    return FPNDecoder(channels, PROMPT_DIM, dim=16, segmentation_dim=32, dropout=dropout, pixel_dim=8, hidden=16)


def upernet(channels: tuple[int, ...]) -> UPerNetDecoder:
    return UPerNetDecoder(channels, PROMPT_DIM, dim=16, pixel_dim=8, hidden=16)


MAKERS = [pytest.param(maker, id=maker.__name__) for maker in (unet, fpn, upernet)]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def maps(num: int = 3, b: int = 2, size: tuple[int, int] = (16, 24)) -> list[Tensor]:
    return [torch.randn(b, width, -(-size[0] // 2**level), -(-size[1] // 2**level)) for level, width in enumerate(CHANNELS[:num])]


def prompts(m: int = 3, k: int = 6) -> Tensor:
    return torch.randn(m, k, PROMPT_DIM)


def memory(features: Tensor, image_index: Tensor, mask_logits: Tensor, level: int) -> Tensor:
    inside = F.interpolate(mask_logits[:, None], size=features.shape[-2:], mode="bilinear", align_corners=False).sigmoid()
    return features[image_index] * (1 + level + inside)


def given(decoder: MaskDecoder, features: list[Tensor]) -> Tensor:
    """The map that the decoder's head is given."""
    seen: list[Tensor] = []
    hook = decoder.get_submodule("head.pixels").register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    decoder(features, prompts(), INDEX)
    hook.remove()
    return seen[0]


# ---------------------------------------------------------------- against the package, fed by an encoder with strides 1 to 32


def check_against(parity: Callable[..., None], decoder: MaskDecoder, body: nn.Module, ours: list[Tensor], theirs: list[Tensor]) -> None:
    prepare(body)
    body.load_state_dict(decoder.get_submodule("body").state_dict())
    decoder.eval()
    body.eval()
    with torch.no_grad():
        found, expected = given(decoder, ours), body(theirs)
    names = (f"`{type(decoder).__name__}`", f"segmentation-models-pytorch `{type(body).__name__}`")
    parity(*names, "map that masks are read from", found, expected, rtol=1.3e-6)


def test_unet_reads_what_the_package_reads(parity: Callable[..., None]) -> None:
    features = maps(5, size=(32, 48))
    image = torch.randn(2, 3, 64, 96)
    check_against(parity, unet(CHANNELS), UNetBody((3, *CHANNELS), (32, 16, 8, 8, 8)), features, [image, *features])


def test_fpn_reads_what_the_package_reads(parity: Callable[..., None]) -> None:
    features = maps(5, size=(32, 48))
    check_against(parity, fpn(CHANNELS), FPNBody([3, *CHANNELS], 5, 16, 32), features, features)


def test_upernet_reads_what_the_package_reads(parity: Callable[..., None]) -> None:
    features = maps(4)
    outer = [torch.randn(2, 3, 64, 96), torch.randn(2, 4, 32, 48)]
    check_against(parity, upernet(CHANNELS[:4]), UPerNetBody((3, 4, *CHANNELS[:4]), decoder_channels=16), features, [*outer, *features])


def test_published_widths_are_the_package_s() -> None:
    decoder = UNetDecoder(CHANNELS, PROMPT_DIM)
    assert [block.get_submodule("conv1.0").weight.shape[0] for block in decoder.body.blocks] == [256, 128, 64, 32, 16]
    assert FPNDecoder(CHANNELS, PROMPT_DIM).body.out_channels == 128


# ---------------------------------------------------------------- what reaches the masks


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("num", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("size", [(16, 24), (13, 9)])
def test_any_number_of_maps_and_any_size(make: Maker, num: int, size: tuple[int, int]) -> None:
    drawing = make(CHANNELS[:num]).eval()(maps(num, size=size), prompts(k=2), INDEX)
    scale = {unet: 2.0, fpn: 0.5 if num == 5 else 1.0, upernet: 1.0}[make]
    assert drawing.mask_logits.shape == (3, *(-(-int(side * scale * 2) // 2) for side in size))


@pytest.mark.parametrize("upsamples", [0, 1, 2, 3])
def test_unet_goes_beyond_the_finest_map(upsamples: int) -> None:
    assert unet(CHANNELS[:3], upsamples)(maps(), prompts(), INDEX).mask_logits.shape == (3, 16 << upsamples, 24 << upsamples)


@pytest.mark.parametrize("make", MAKERS)
def test_maps_of_one_size_are_read_too(make: Maker) -> None:
    features = [torch.randn(2, width, 6, 9) for width in CHANNELS[:2]]
    plain, asked = make(CHANNELS[:2]).eval(), prompts()
    masks = plain(features, asked, INDEX).mask_logits
    for index in range(2):
        changed = [torch.randn_like(x) if index == level else x for level, x in enumerate(features)]
        assert (plain(changed, asked, INDEX).mask_logits - masks).abs().amax() > 1e-4


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("recall", [None, memory])
def test_every_parameter_learns(make: Maker, recall: object) -> None:
    decoder = make(CHANNELS[:3])
    drawing = decoder(maps(), prompts(), INDEX, recall)
    assert len(drawing.auxiliary) == (recall is not None)
    (drawing.mask_logits.square().sum() + sum(mask.square().sum() for mask in drawing.auxiliary)).backward()
    dead = [name for name, parameter in decoder.named_parameters() if parameter.grad is None or not parameter.grad.abs().sum() > 0]
    assert not dead


@pytest.mark.parametrize("make", MAKERS)
def test_image_prompt_and_memory_reach_the_masks(make: Maker) -> None:
    decoder, features, asked = make(CHANNELS[:3]).eval(), maps(), prompts()
    plain = decoder(features, asked, INDEX).mask_logits
    for changed in (decoder(maps(), asked, INDEX), decoder(features, prompts(), INDEX), decoder(features, asked, INDEX, memory)):
        assert (changed.mask_logits - plain).abs().amax(dim=(1, 2)).min() > 1e-3


@pytest.mark.parametrize("make", MAKERS)
def test_neighbours_do_not_matter_even_in_training(make: Maker) -> None:
    decoder, features, asked = make(CHANNELS[:3]).train(), maps(), prompts()
    together = decoder(features, asked, INDEX, memory).mask_logits
    alone = decoder([x[1:] for x in features], asked[2:], INDEX[:1], memory).mask_logits
    torch.testing.assert_close(together[2:], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("make", MAKERS)
def test_the_package_s_decoder_runs_once_per_image(make: Maker) -> None:
    decoder, calls = make(CHANNELS[:3]), []
    decoder.get_submodule("body").register_forward_hook(lambda _, __, found: calls.append(len(found)))
    decoder(maps(), prompts(m=3), INDEX, memory)
    assert calls == [2]


@pytest.mark.parametrize("make", MAKERS)
def test_nothing_to_draw_still_differentiates(make: Maker) -> None:
    drawing = make(CHANNELS[:3])(maps(), prompts(m=0), INDEX[:0], memory)
    assert len(drawing.mask_logits) == 0
    drawing.mask_logits.sum().backward()


@pytest.mark.parametrize("make", MAKERS)
def test_bf16_autocast_trains(make: Maker) -> None:
    decoder = make(CHANNELS[:3])
    with torch.autocast("cpu", torch.bfloat16):
        drawing = decoder(maps(), prompts(), INDEX, memory)
    drawing.mask_logits.float().square().sum().backward()
    assert drawing.mask_logits.isfinite().all()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in decoder.parameters())


def test_clear_errors() -> None:
    with pytest.raises(ValueError, match="needs at least one block; found upsamples 0"):
        unet(CHANNELS[:1], upsamples=0)
    with pytest.raises(ValueError, match="a multiple of 32"):
        FPNDecoder(CHANNELS, PROMPT_DIM, segmentation_dim=48)
