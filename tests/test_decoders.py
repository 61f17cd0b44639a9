"""Mask decoders: what reaches the masks, what is learned, and the released wiring of GeoPix, number by number."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from geopix.contracts import MaskDecoder
from geopix.decoders.dot import DotDecoder
from geopix.decoders.multi_scale import NOTHING, MultiScaleDecoder
from geopix.decoders.two_way_transformer import FourierPosition, TwoWayTransformer, Upscale, unfold_cells

CHANNELS = (12, 20)
PROMPT_DIM = 24
GOLDEN = Path(__file__).parents[1].parent / "shared" / "golden"

Maker = Callable[[], MaskDecoder]


def multi_scale(levels: tuple[int, ...] | None = None) -> MultiScaleDecoder:
    return MultiScaleDecoder(CHANNELS, PROMPT_DIM, dim=16, neck_dim=16, grid=8, levels=levels, heads=2, mlp_dim=32)


def dot() -> DotDecoder:
    return DotDecoder(CHANNELS, PROMPT_DIM, dim=16, hidden=32)


MAKERS = [pytest.param(multi_scale, id="multi_scale"), pytest.param(dot, id="dot")]
INDEX = torch.tensor([0, 0, 1])


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def maps(b: int = 2, size: tuple[int, int] = (16, 16)) -> list[Tensor]:
    return [torch.randn(b, CHANNELS[0], *size), torch.randn(b, CHANNELS[1], -(-size[0] // 2), -(-size[1] // 2))]


def prompts(m: int = 3, k: int = 6) -> Tensor:
    return torch.randn(m, k, PROMPT_DIM)


class MaskedFeatures(nn.Module):
    """A stand-in for a memory: it returns each mask's features, weighted by the first mask."""

    def forward(self, features: Tensor, image_index: Tensor, mask_logits: Tensor, level: int) -> Tensor:
        inside = F.interpolate(mask_logits[:, None], size=features.shape[-2:], mode="bilinear", align_corners=False).sigmoid()
        return features[image_index] * (1 + level + inside)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("recall", [None, MaskedFeatures()])
def test_every_parameter_learns(make: Maker, recall: nn.Module | None) -> None:
    decoder = make()
    drawing = decoder(maps(), prompts(), INDEX, recall)
    total = drawing.mask_logits.square().sum() + sum(mask.square().sum() for mask in drawing.auxiliary)
    if drawing.where is not None:
        total = total + drawing.where.square().sum()
    if drawing.quality is not None:
        total = total + drawing.quality.sum()
    total.backward()
    dead = [name for name, parameter in decoder.named_parameters() if parameter.grad is None or not parameter.grad.abs().sum() > 0]
    assert not dead


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("recall", [None, MaskedFeatures()])
def test_a_batch_without_masks_draws_nothing_and_still_differentiates(make: Maker, recall: nn.Module | None) -> None:
    decoder = make()
    drawing = decoder(maps(b=1), prompts(m=0), torch.zeros(0, dtype=torch.long), recall)
    assert len(drawing.mask_logits) == 0
    drawing.mask_logits.sum().backward()


@pytest.mark.parametrize("make", MAKERS)
def test_batch_neighbours_do_not_matter(make: Maker) -> None:
    decoder = make().eval()
    features, asked = maps(), prompts()
    together = decoder(features, asked, INDEX, MaskedFeatures()).mask_logits
    alone = decoder([x[1:] for x in features], asked[2:], torch.tensor([0]), MaskedFeatures()).mask_logits
    torch.testing.assert_close(together[2:], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("make", MAKERS)
def test_image_prompt_and_memory_reach_the_masks(make: Maker) -> None:
    decoder = make().eval()
    features, asked = maps(), prompts()
    plain = decoder(features, asked, INDEX).mask_logits
    for changed in (decoder(maps(), asked, INDEX), decoder(features, prompts(), INDEX), decoder(features, asked, INDEX, MaskedFeatures())):
        assert (changed.mask_logits - plain).abs().amax(dim=(1, 2)).min() > 1e-3


@pytest.mark.parametrize("make", MAKERS)
def test_save_and_load(make: Maker) -> None:
    decoder, other = make().eval(), make().eval()
    features, asked = maps(), prompts()
    stored = io.BytesIO()
    torch.save(decoder.state_dict(), stored)
    stored.seek(0)
    other.load_state_dict(torch.load(stored, weights_only=True))
    torch.testing.assert_close(decoder(features, asked, INDEX).mask_logits, other(features, asked, INDEX).mask_logits)


@pytest.mark.parametrize("make", MAKERS)
def test_bf16_autocast(make: Maker) -> None:
    decoder = make()
    with torch.autocast("cpu", torch.bfloat16):
        drawing = decoder(maps(), prompts(), INDEX, MaskedFeatures())
    drawing.mask_logits.float().sum().backward()
    assert drawing.mask_logits.isfinite().all()


def test_dot_masks_have_the_size_of_the_finest_map() -> None:
    drawing = dot()(maps(size=(11, 7)), prompts(k=2), INDEX)
    assert drawing.mask_logits.shape == (3, 11, 7)


@pytest.mark.parametrize(
    ("levels", "size", "expected"),
    [(None, (16, 16), (32, 32)), ((-1,), (16, 16), (16, 16)), ((-1, 0, 0), (16, 16), (64, 64)), (None, (32, 16), (32, 16)), (None, (11, 7), (32, 20))],
)
def test_multi_scale_sizes(levels: tuple[int, ...] | None, size: tuple[int, int], expected: tuple[int, int]) -> None:
    decoder = multi_scale(levels)
    drawing = decoder(maps(size=size), prompts(k=decoder.num_tokens or 0), INDEX, MaskedFeatures())
    assert drawing.mask_logits.shape == (3, *expected)
    assert len(drawing.auxiliary) == 2 * len(decoder.memory_channels)
    assert drawing.quality is not None
    assert drawing.quality.shape == (3,)


def test_the_previous_level_guides_the_next() -> None:
    decoder = multi_scale().eval()
    with torch.no_grad():
        decoder.mask_mlp[-1].weight *= 30  # masks of a fresh decoder are close to even everywhere
    features, asked = maps(), prompts()
    before = decoder(features, asked, INDEX).auxiliary[1]
    asked = torch.cat([torch.randn(3, 3, PROMPT_DIM), asked[:, 3:]], dim=1)
    assert (decoder(features, asked, INDEX).auxiliary[1] - before).abs().amax() > 1e-3


def test_without_a_second_look_refined_masks_are_all_there_is() -> None:
    decoder = multi_scale().eval()
    drawing = decoder(maps(), prompts(), INDEX)
    coarse, fine = drawing.auxiliary
    expected = 0.5 * F.interpolate(coarse[:, None], scale_factor=2, mode="bilinear", align_corners=False)[:, 0] + 0.5 * fine
    torch.testing.assert_close(drawing.mask_logits, expected)


def test_clear_errors() -> None:
    with pytest.raises(ValueError, match="reads 6 segmentation tokens"):
        multi_scale()(maps(), prompts(k=4), INDEX)
    with pytest.raises(ValueError, match="must name at least one"):
        multi_scale((2,))
    with pytest.raises(ValueError, match="evenly"):
        MultiScaleDecoder(CHANNELS, PROMPT_DIM, dim=16, heads=3)


def test_upscale_is_a_transposed_convolution() -> None:
    upscale = Upscale(6, 4)
    x = torch.randn(2, 6, 3, 5)
    plain = F.conv_transpose2d(x, upscale.weight, upscale.bias, stride=2).permute(0, 2, 3, 1)
    expected = F.gelu(upscale.norm(plain))
    torch.testing.assert_close(unfold_cells(upscale(x.permute(0, 2, 3, 1))), expected)
    vectors = torch.randn(2, 4)
    torch.testing.assert_close(unfold_cells(upscale.project(x.permute(0, 2, 3, 1), vectors)), torch.einsum("mhwc,mc->mhw", expected, vectors))


def test_attention_with_moved_projections_is_multi_head_attention() -> None:
    transformer = TwoWayTransformer(16, depth=1, heads=2, mlp_dim=8)
    block = transformer.blocks[0]
    tokens, cells, code = torch.randn(2, 3, 16), torch.randn(2, 7, 16), torch.randn(7, 16)

    def plain(part: nn.Module, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.unflatten(-1, (2, 4)).transpose(1, 2) for x in (part.q_proj(q), part.k_proj(k), part.v_proj(v)))
        return part.out_proj(((q @ k.transpose(-1, -2) / 2).softmax(-1) @ v).transpose(1, 2).flatten(2))

    torch.testing.assert_close(block.read(tokens, cells + code, cells), plain(block.read, tokens, cells + code, cells))
    torch.testing.assert_close(block.write(cells + code, tokens, tokens + 1), plain(block.write, cells + code, tokens, tokens + 1))


def released_weights(folder: Path) -> dict[str, Tensor]:
    """The released tensors that change masks, under this decoder's names. Key biases cancel in the softmax and are left out."""
    seg = {name.removeprefix("mask_decoder."): x.float() for name, x in load_file(folder / "seg" / "model.safetensors").items()}
    pec = load_file(folder / "pec" / "model.safetensors")
    parts = {
        "self_attn": "self_attention",
        "cross_attn_token_to_image": "read",
        "cross_attn_image_to_token": "write",
        "norm1": "norm_self",
        "norm2": "norm_read",
        "norm3": "norm_mlp",
        "norm4": "norm_write",
        "mlp": "mlp",
    }
    state = {
        "quality_token": seg["iou_token.weight"],
        "mask_tokens": seg["mask_tokens.weight"],
        "level_embed": seg["level_embed.weight"],
        "no_mask": pec["prompt_encoder.no_mask_embed.weight"][0],
        "positions.0.gaussian": pec["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"],
        "positions.1.gaussian": seg["pe1.positional_encoding_gaussian_matrix"],
        "token_weights": torch.stack([torch.as_tensor(x).detach().float() for x in torch.load(folder / "multiseg_scalar.pth")[:3]]),
        "level_weights": torch.stack([torch.as_tensor(x).detach().float() for x in torch.load(folder / "multiscale_scalar.pth")[:2]]),
    }
    for name, x in seg.items():
        words = name.split(".")
        if name.endswith("k_proj.bias"):
            continue
        if words[0] == "transformer":
            if words[2] == "layers":
                inner = words[5:] if words[4] != "mlp" else [{"lin1": "0", "lin2": "2"}[words[5]], words[6]]
                state[".".join(["transformers", words[1], "blocks", words[3], parts[words[4]], *inner])] = x
            else:
                part = {"final_attn_token_to_image": "read", "norm_final_attn": "norm_read"}[words[2]]
                state[".".join(["transformers", words[1], part, *words[3:]])] = x
        elif name.startswith("output_hypernetworks_mlps.0."):
            state[f"mask_mlp.{2 * int(words[3])}.{words[4]}"] = x
        elif words[0] in ("output_upscaling", "upsample_2x"):
            ours = {"output_upscaling": "output_upscale", "upsample_2x": "upsample"}[words[0]]
            state[f"{ours}.{words[2]}" if words[1] == "0" else f"{ours}.norm.{words[2]}"] = x
    for level, file in enumerate(("image_neck_rough.pth", "image_neck_detail.pth")):
        for name, x in torch.load(folder / file).items():
            state[f"necks.{level}." + name.replace("conv1", "enter").replace("conv2", "leave")] = x
    return state | {f"prompt_proj.{name}": x for name, x in torch.load(folder / "text_hidden_fcs.pth").items()}


def test_positions_are_those_of_the_release(parity: Callable[..., None]) -> None:
    if not GOLDEN.is_dir():
        pytest.skip(f"no golden data in {GOLDEN}")
    folder = sorted(path for path in GOLDEN.iterdir() if path.is_dir())[0]
    position = FourierPosition(256)
    position.gaussian = load_file(folder / "checkpoint" / "pec" / "model.safetensors")["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"].float()
    expected = load_file(folder / "constants.safetensors")["image_pe_32"]
    parity("`MultiScaleDecoder`", "GeoPix's released code", "positions", position(32, 32), expected[0].flatten(1).T, atol=1e-4, rtol=0)


@pytest.mark.parametrize("case", ["case_1", "case_2"])
def test_wiring_is_that_of_the_release(case: str, parity: Callable[..., None]) -> None:
    if not GOLDEN.is_dir():
        pytest.skip(f"no golden data in {GOLDEN}")
    folder = sorted(path for path in GOLDEN.iterdir() if path.is_dir())[0]
    golden = load_file(folder / f"{case}.safetensors")
    width = golden["clip_hidden_m2"].shape[-1]
    decoder = MultiScaleDecoder((width, width), golden["llm_hidden_pred"].shape[-1]).eval()
    report = decoder.load_state_dict(released_weights(folder / "checkpoint"), strict=False)
    assert not report.unexpected_keys
    assert {name.split(".")[0] for name in report.missing_keys} == {"quality_mlp", "locator"}
    clm = load_file(folder / "checkpoint" / "clm" / "model.safetensors")
    scale, weight, bias = (clm[f"memory_attention.{name}"].float() for name in ("layers.0.scale", "norm.weight", "norm.bias"))

    def as_released(features: Tensor, image_index: Tensor, mask_logits: Tensor, level: int) -> Tensor:
        scaled = features.permute(0, 2, 3, 1) * (1 + scale)
        return F.layer_norm(scaled, (256,), weight, bias).permute(0, 3, 1, 2)[image_index]

    features = [golden[name].transpose(1, 2).unflatten(-1, (24, 24)) for name in ("clip_hidden_m11", "clip_hidden_m2")]
    states = golden["llm_hidden_pred"][0][golden["seg_positions"].long()]
    with torch.no_grad():
        drawing = decoder(features, states, torch.zeros(len(states), dtype=torch.long), as_released)
    names = ("coarse_level0", "refined_level0", "coarse_level1", "refined_level1")
    for found, name in zip((*drawing.auxiliary, drawing.mask_logits), (*names, "masks"), strict=True):
        compared = name.replace("_level", " masks, level ")
        parity("`MultiScaleDecoder`", "GeoPix's released code", compared, found, golden[name].view_as(found), atol=5e-4, rtol=0)


def test_masks_without_evidence_are_emptied_when_answering_alone() -> None:
    decoder, features, asked = multi_scale().eval(), maps(), prompts()
    plain = decoder(features, asked, INDEX)
    assert plain.where is not None
    most = plain.where.flatten(1).amax(1)
    decoder.evidence = most.median().item()
    kept = most >= decoder.evidence
    drawn = decoder(features, asked, INDEX).mask_logits
    assert 0 < kept.sum() < len(kept)
    torch.testing.assert_close(drawn[kept], plain.mask_logits[kept])
    assert (drawn[~kept] == NOTHING).all()
    assert (decoder.train()(features, asked, INDEX).mask_logits > NOTHING).all(), "in training every mask learns"
