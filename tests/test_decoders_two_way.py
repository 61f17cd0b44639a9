"""SAM's mask decoder: equal to transformers' own on random weights, from both layouts, and what a language model needs of it beside."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import SamConfig, SamModel

from geopix.decoders.sam2 import Sam2Decoder
from geopix.decoders.two_way import MapProjection, TwoWayDecoder
from geopix.decoders.two_way_transformer import Upscale, UpscaledProducts, fold_cells, unfold_cells

DIM = 32
SMALL = {"dim": DIM, "heads": 4, "mlp_dim": 48}
INDEX = torch.tensor([0, 0, 1])


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def sam() -> SamModel:
    torch.manual_seed(1)
    vision = {"hidden_size": 8, "output_channels": DIM, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 64, "patch_size": 8}
    vision |= {"num_pos_feats": DIM // 2, "mlp_dim": 8, "window_size": 4, "global_attn_indexes": [0]}
    prompt = {"hidden_size": DIM, "image_size": 64, "patch_size": 8, "image_embedding_size": 8}
    mask = {"hidden_size": DIM, "mlp_dim": 48, "num_attention_heads": 4, "iou_head_hidden_dim": DIM}
    model = SamModel(SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=mask)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


@pytest.fixture(scope="module")
def folder(sam: SamModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sam")
    sam.save_pretrained(path)
    return path


def in_metas_layout(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names that Meta's release gives to the same tensors."""
    renamed = {"shared_image_embedding.positional_embedding": "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"}
    swaps = [("vision_encoder.", "image_encoder."), ("point_embed.", "point_embeddings."), ("mask_embed.conv1", "mask_downscaling.0")]
    swaps += [("layer_norm_final_attn", "norm_final_attn"), ("upscale_conv1", "output_upscaling.0"), ("upscale_layer_norm", "output_upscaling.1")]
    swaps += [("upscale_conv2", "output_upscaling.3")]
    out = {}
    for name, value in state.items():
        new = renamed.get(name, name)
        for ours, theirs in swaps if not name.startswith("prompt_encoder.no_mask") else []:
            new = new.replace(ours, theirs) if "not_a_point" not in new else new
        new = re.sub(r"layer_norm(\d)", r"norm\1", new)
        if "hypernetworks" in new or "iou_prediction" in new:
            new = new.replace("layers.0", "layers.1").replace("proj_in", "layers.0").replace("proj_out", "layers.2")
        if "shared_embedding" not in new:
            out[new] = value
    return out


def decoder_of(weights: Path, **options: object) -> TwoWayDecoder:
    """A decoder whose prompts are taken as they are, as SAM's own prompt encoder gives them."""
    decoder = TwoWayDecoder((DIM,), DIM, **SMALL, weights=weights, **options).eval()
    assert isinstance(decoder.image_proj, nn.Identity)
    decoder.prompt_proj = nn.Identity()
    return decoder


@torch.no_grad()
def both(sam: SamModel, decoder: TwoWayDecoder, multimask: bool) -> tuple[object, object]:
    pixels, points = torch.rand(2, 3, 64, 64), torch.rand(2, 2, 3, 2) * 64
    labels = torch.tensor([1, 0, 1]).expand(2, 2, 3)
    theirs = sam(pixel_values=pixels, input_points=points, input_labels=labels, multimask_output=multimask)
    sparse, _ = sam.prompt_encoder(points, labels, None, None)
    ours = decoder([sam.get_image_embeddings(pixels)], sparse.flatten(0, 1), torch.tensor([0, 0, 1, 1]))
    return theirs, ours


@pytest.mark.parametrize("layout", ["transformers", "meta"])
def test_single_masks_equal_those_of_transformers(sam: SamModel, folder: Path, layout: str, tmp_path: Path, parity: Callable[..., None]) -> None:
    if layout == "meta":
        torch.save(in_metas_layout(sam.state_dict()), tmp_path / "sam.pth")
    theirs, ours = both(sam, decoder_of(folder if layout == "transformers" else tmp_path / "sam.pth"), multimask=False)
    assert theirs.pred_masks.std() > 0.1
    names = ("`TwoWayDecoder`", "transformers `SamModel`")
    parity(*names, "masks", ours.mask_logits, theirs.pred_masks[:, :, 0].flatten(0, 1), rtol=1e-4)
    parity(*names, "IoU", ours.quality, theirs.iou_scores[:, :, 0].flatten(), rtol=1e-4)


def test_the_best_of_three_masks_is_that_of_transformers(sam: SamModel, folder: Path, parity: Callable[..., None]) -> None:
    theirs, ours = both(sam, decoder_of(folder, multimask=True), multimask=True)
    scores = theirs.iou_scores.flatten(0, 1)
    expected = theirs.pred_masks.flatten(0, 1)[torch.arange(4), scores.argmax(1)]
    names = ("`TwoWayDecoder`", "transformers `SamModel`")
    parity(*names, "masks, best of three", ours.mask_logits, expected, rtol=1e-4)
    parity(*names, "IoU, best of three", ours.quality, scores.amax(1), rtol=1e-4)


def test_every_misfit_of_weights_is_named(sam: SamModel, folder: Path, tmp_path: Path) -> None:
    state = {name: value.clone() for name, value in sam.state_dict().items() if name.startswith(("mask", "shared", "prompt_encoder.no"))}
    del state["mask_decoder.iou_token.weight"], state["mask_decoder.upscale_conv1.bias"]
    save_file(state | {"mask_decoder.strange": torch.ones(1), "else": torch.ones(1)}, tmp_path / "bad.safetensors")
    with pytest.raises(ValueError, match=r"2 missing: head.quality_token, head.upscale.bias; 2 left over: else, mask_decoder.strange"):
        decoder_of(tmp_path / "bad.safetensors")
    with pytest.raises(ValueError, match=r"of another shape: .*mask_decoder.mask_tokens.weight \(4, 32\) for \(4, 16\)"):
        TwoWayDecoder((DIM,), DIM, dim=16, heads=4, mlp_dim=48, weights=folder)
    with pytest.raises(ValueError, match=r"Sam2Decoder: .* missing: presence_token, fine_skip\.convolution"):
        Sam2Decoder((DIM,), DIM, **SMALL, weights=folder)
    with pytest.raises(FileNotFoundError, match=r"no weights at .*nowhere"):
        decoder_of(tmp_path / "nowhere")
    torch.save([1], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="found list"):
        decoder_of(tmp_path / "list.pth")
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot read weights"):
        decoder_of(tmp_path / "broken.safetensors")


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("run",)


def test_a_pickle_with_code_is_refused_and_two_files_are_not_guessed_between(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"mask_decoder.iou_token.weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="cannot read weights"):
        decoder_of(tmp_path)
    assert not capsys.readouterr().out
    torch.save({}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"several weights: evil.pth, other.pt"):
        decoder_of(tmp_path)


def test_the_published_size_is_that_of_sam() -> None:
    with torch.device("meta"):
        own = SamModel(SamConfig(vision_config={"num_hidden_layers": 1, "global_attn_indexes": [0]})).mask_decoder
        decoder = TwoWayDecoder((256,), 4096)
    left_out = [parameter for name, parameter in own.named_parameters() if re.search(r"k_proj.bias|hypernetworks_mlps.[123]", name)]
    quality_rows = 3 * 257
    expected = sum(parameter.numel() for parameter in own.parameters()) - sum(parameter.numel() for parameter in left_out) - quality_rows
    assert sum(parameter.numel() for parameter in decoder.head.parameters()) - decoder.head.no_mask.numel() == expected


def test_maps_of_another_width_are_projected_and_any_number_of_tokens_is_read() -> None:
    decoder = TwoWayDecoder((12, 20), 24, level=0, dim=16, heads=2, mlp_dim=32).eval()
    assert isinstance(decoder.image_proj, MapProjection)
    features = [torch.randn(2, 12, 7, 5), torch.randn(2, 20, 4, 3)]
    for k in (1, 3):
        assert decoder(features, torch.randn(3, k, 24), INDEX).mask_logits.shape == (3, 28, 20)
    assert isinstance(TwoWayDecoder((16,), 24, dim=16, heads=2, project=True).image_proj, MapProjection)


@pytest.mark.parametrize("multimask", [False, True])
@pytest.mark.parametrize("remember", [False, True])
def test_every_parameter_learns(multimask: bool, remember: bool) -> None:
    decoder = TwoWayDecoder((12,), 24, dim=16, heads=2, mlp_dim=32, multimask=multimask)
    looks = []

    def recall(image: Tensor, image_index: Tensor, logits: Tensor, level: int) -> Tensor:
        looks.append((logits, level))
        return image[image_index] * (1 + logits.mean((1, 2)).sigmoid()[:, None, None, None])

    for best in range(len(decoder.head.drawn)):
        with torch.no_grad():
            decoder.head.quality_mlp[-1].bias.fill_(0)[best] = 3  # each of the drawn masks is the best in turn
        looks.clear()
        drawing = decoder([torch.randn(2, 12, 6, 8)], torch.randn(3, 6, 24), INDEX, recall if remember else None)
        assert len(drawing.auxiliary) == len(looks) == remember
        if remember:
            assert looks[0][0] is drawing.auxiliary[0]
            assert looks[0][1] == 0
            assert not torch.equal(drawing.auxiliary[0], drawing.mask_logits)
        (drawing.mask_logits.square().sum() + drawing.quality.sum()).backward()
    dead = [name for name, parameter in decoder.named_parameters() if parameter.grad is None or not parameter.grad.abs().sum() > 0]
    assert not dead


def test_clear_errors() -> None:
    with pytest.raises(ValueError, match="level 2 must name one of the encoder's 2 maps"):
        TwoWayDecoder((12, 20), 24, level=2)
    with pytest.raises(ValueError, match="project is false but the encoder's map has 20 channels"):
        TwoWayDecoder((12, 20), 24, project=False)
    with pytest.raises(ValueError, match="multiple of 4"):
        TwoWayDecoder((12, 20), 24, dim=18, heads=2)


def test_upscaled_products_are_transposed_convolutions_with_skips() -> None:
    first, second = Upscale(8, 6), UpscaledProducts(6, 4)
    x, middle, fine, vectors = torch.randn(2, 8, 3, 5), torch.randn(2, 6, 6, 10), torch.randn(2, 4, 12, 20), torch.randn(2, 3, 4)
    plain = nn.functional.conv_transpose2d(x, first.weight, first.bias, stride=2) + middle
    plain = nn.functional.gelu(first.norm(plain.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
    plain = nn.functional.gelu(nn.functional.conv_transpose2d(plain, second.weight, second.bias, stride=2) + fine)
    found = unfold_cells(first(x.permute(0, 2, 3, 1), fold_cells(middle.permute(0, 2, 3, 1))))
    found = second(found, vectors, fold_cells(fine.permute(0, 2, 3, 1)))
    torch.testing.assert_close(found, torch.einsum("mchw,moc->mohw", plain, vectors))
