"""The released weights' layout: the same numbers as the reference, and one clear error for a folder that does not hold them."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from geopix import released
from geopix.model import GeoPixModel, gather_seg
from geopix.released import load_released
from geopix.released.folder import StoredTensors
from geopix.types import Turn
from tests.commands import ROOT, geopix

FEATURES, LOGITS = 5e-5, 5e-4
BANK = (75, 2, 64, 64, 32, 32)


@dataclass(frozen=True)
class Case:
    """An image, a question about it, and what the reference computed."""

    golden: dict[str, Tensor]
    question: str

    @property
    def image(self) -> Tensor:
        return self.golden["image_rgb"].permute(2, 0, 1)[None] / 255


@pytest.fixture(scope="module")
def seed(shared: Path) -> Path:
    """The first of the small models in the released layout."""
    folders = sorted(path for path in (shared / "golden").glob("*") if path.is_dir())
    if not folders:
        pytest.skip(f"no golden data in {shared.name}/golden beside the repository")
    return folders[0]


@pytest.fixture(scope="module")
def weights(seed: Path) -> Path:
    return seed / "checkpoint"


@pytest.fixture(scope="module")
def model(weights: Path) -> GeoPixModel:
    return load_released(weights, channel_order="bgr")


@pytest.fixture(scope="module")
def cases(seed: Path) -> list[Case]:
    found = []
    for path in sorted(seed.glob("case_*.safetensors")):
        text = safe_open(path, framework="pt").metadata()["prompt_text"]
        found.append(Case(load_file(path), text.split("<image>\n")[1].removesuffix(" ASSISTANT:")))
    return found


def ask(folder: Path, image: Tensor, question: str) -> tuple[str, Tensor]:
    """As docs/released.md shows it."""
    # --8<-- [start:use]
    from geopix.released import load_released

    model = load_released(folder, channel_order="bgr")
    with torch.no_grad():
        seen = model.encode(image)  # 1 3 336 336, red first, in 0..1
        prediction = model.generate(seen, [[question]], torch.tensor([0]), max_new_tokens=256)
    answer, masks = prediction.answers[0][0], prediction.drawing.mask_logits > 0
    # --8<-- [end:use]
    return answer, masks


@pytest.fixture
def close(parity: Callable[..., None]) -> Callable[..., None]:
    """``close(part, compared, found, expected, tolerance)``: the numbers of the released code."""

    def compare(part: object, compared: str, found: Tensor, expected: Tensor, tolerance: float) -> None:
        parity(f"`{type(part).__name__}`", "GeoPix's released code", compared, found.reshape(expected.shape), expected, atol=tolerance, rtol=0)

    return compare


@torch.no_grad()
@pytest.mark.parametrize("number", [0, 1])
def test_every_step_is_that_of_the_reference(model: GeoPixModel, cases: list[Case], number: int, close: Callable[..., None]) -> None:
    golden, index = cases[number].golden, torch.zeros(len(cases[number].golden["seg_positions"]), dtype=torch.long)
    seen = model.encode(cases[number].image)
    for maps, layer in zip(seen.features, (11, 2), strict=True):
        close(model.encoder, f"hidden state -{layer}", maps.flatten(2).transpose(1, 2), golden[f"clip_hidden_m{layer}"], FEATURES)
    close(model.connector, "tokens", seen.visual, golden["mm_projector_out"], FEATURES)

    asked = model.llm.tokenize([(Turn(cases[number].question),)], seen.visual.shape[1], ask=True)
    assert torch.equal(asked.ids, golden["input_ids"]), "the release's conversation, token by token"
    ids = torch.cat([asked.ids, golden["answer_ids"]], 1)
    embeds = model.llm.embed(ids).masked_scatter((ids == model.llm.image_id)[..., None], seen.visual)
    hidden = model.llm(embeds, torch.ones_like(ids, dtype=torch.bool))[:, asked.ids.shape[1] - 1 :]
    close(model.llm, "states", hidden[:, :-1], golden["llm_hidden_pred"], FEATURES)
    logits = model.llm.head(hidden[0, :-1]).topk(8)
    assert torch.equal(logits.indices[:, 0], golden["lm_top8_ids"][:, 0])
    close(model.llm, "eight largest logits", logits.values, golden["lm_top8_logits"], LOGITS)

    states, _ = gather_seg(golden["answer_ids"], hidden, model.llm.seg_ids, own_state=False)
    close(model.decoder, "prompts", model.decoder.prompt_proj(states), golden["seg_proj"], FEATURES)
    close(model.decoder, "prompts, fused", model.decoder._fuse(states), golden["fused"], FEATURES)
    for level, maps in enumerate(reversed(seen.features)):
        neck = model.decoder.necks[level](maps, (32, 32))
        close(model.decoder, f"neck, level {level}", neck, golden[f"neck_level{level}"], FEATURES)
        refined = model.memory(neck, torch.tensor([0]), neck.new_zeros(1, 1, 1), level, prompts=states[:1], class_ids=torch.tensor([-1]))
        close(model.memory, f"map, level {level}", refined, golden[f"clm_level{level}"], FEATURES)
    drawing = model._draw(seen, states, index, torch.tensor([0]), index - 1)
    for mask, name in zip((*drawing.auxiliary, drawing.mask_logits), ("refined_level0", "refined_level1", "masks"), strict=True):
        close(model.decoder, name.replace("_level", " masks, level "), mask, golden[name], LOGITS)


def test_free_answers_of_a_batch_are_those_of_the_reference(model: GeoPixModel, cases: list[Case], close: Callable[..., None]) -> None:
    with torch.no_grad():
        seen = model.encode(torch.cat([case.image for case in cases]))
        asked = [[cases[1].question], [cases[0].question], [cases[1].question]]
        prediction = model.generate(seen, asked, torch.tensor([1, 0, 1]), max_new_tokens=40)
    texts = [model.llm.decode(case.golden["answer_ids"])[0] for case in cases]
    assert [answer for (answer,) in prediction.answers] == [texts[1], texts[0], texts[1]]
    assert texts == ["Top[SEG] and bottom[SEG].", "[SEG][SEG] and[SEG]"], "three tokens of the second answer are no whole run"
    expected = torch.cat([cases[1].golden["masks"], cases[0].golden["masks"], cases[1].golden["masks"]])
    close(model, "masks of free answers", prediction.drawing.mask_logits, expected, LOGITS)
    assert prediction.drawing.dialogue_index.tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
    assert prediction.drawing.quality is not None
    assert prediction.drawing.where is not None
    assert (prediction.drawing.quality == 0.5).all(), "the release has no weights for it, so it says nothing"
    assert (prediction.drawing.where == 0).all()


def test_each_level_is_drawn_once(model: GeoPixModel, cases: list[Case]) -> None:
    passes: list[int] = []
    hooks = [each.register_forward_hook(lambda *_, level=level: passes.append(level)) for level, each in enumerate(model.decoder.transformers)]
    refined: list[int] = []
    hooks.append(model.memory.norms[0].register_forward_hook(lambda _, inputs, __: refined.append(len(inputs[0]))))
    with torch.no_grad():
        states = torch.randn(5, 6, model.llm.dim)
        model._draw(model.encode(cases[0].image), states, torch.zeros(5, dtype=torch.long), torch.tensor([0]), torch.full((5,), -1))
    for hook in hooks:
        hook.remove()
    assert passes == [0, 1]
    assert refined == [1, 1], "once per image, whatever is asked about it"


@torch.no_grad()
def test_the_order_of_colours_is_a_choice(weights: Path, model: GeoPixModel) -> None:
    image = torch.rand(1, 3, 336, 336)
    plain = released.encoder(weights, channel_order="rgb")
    for turned, flipped in zip(model.encoder(image), plain(image.flip(1)), strict=True):
        torch.testing.assert_close(turned, flipped, atol=1e-5, rtol=1e-5)
    assert (plain(image)[-1] - model.encoder(image)[-1]).abs().max() > 0.1


def test_weights_are_float32_and_nothing_inert_is_kept(model: GeoPixModel) -> None:
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert not model.training
    assert sum(parameter.numel() for parameter in model.memory.parameters()) == 3 * 256


def test_as_the_page_shows_it(weights: Path, cases: list[Case]) -> None:
    answer, masks = ask(weights, cases[0].image, cases[0].question)
    assert answer == "Top[SEG] and bottom[SEG]."
    far = cases[0].golden["masks"].abs() > LOGITS
    assert torch.equal(masks[far], (cases[0].golden["masks"] > 0)[far])


# ---------------------------------------------------------------- folders that are not as they should be


@pytest.fixture
def copy(weights: Path, tmp_path: Path) -> Path:
    """The folder as links, each of which a test may replace."""
    for file in weights.rglob("*"):
        if file.is_file():
            link = tmp_path / file.relative_to(weights)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file)
    return tmp_path


def rewrite(file: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    tensors = load_file(file)
    change(tensors)
    file.unlink()
    save_file(tensors, file)


def replace(file: Path, content: str) -> None:
    file.unlink()
    file.write_text(content, encoding="utf-8")


def complaint(folder: Path) -> str:
    with pytest.raises(ValueError, match="does not hold what is read from it") as told:
        load_released(folder, channel_order="bgr")
    return str(told.value)


def test_the_bank_stays_on_disk(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At its real size, in a file of mostly holes."""
    file = copy / "clm" / "model.safetensors"
    small = {name: x for name, x in load_file(file).items() if name != "learnable_memory.memory"}
    bank = 2 * torch.Size(BANK).numel()
    header, body = {"learnable_memory.memory": {"dtype": "F16", "shape": BANK, "data_offsets": [0, bank]}}, b""
    for name, x in small.items():
        data = x.to(torch.float16).contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        header[name] = {"dtype": "F16", "shape": tuple(x.shape), "data_offsets": [bank + len(body), bank + len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    file.unlink()
    with file.open("wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        out.seek(bank, os.SEEK_CUR)
        out.write(body)
    read: list[str] = []
    own = StoredTensors.read
    monkeypatch.setattr(StoredTensors, "read", lambda self, name: read.append(name) or own(self, name))
    memory = released.memory(copy)((256, 256), 8)
    assert sorted(read) == ["memory_attention.layers.0.scale", "memory_attention.norm.bias", "memory_attention.norm.weight"]
    torch.testing.assert_close(memory.scales[0].detach(), small["memory_attention.layers.0.scale"].float())


def test_all_that_is_wrong_is_told_at_once(copy: Path) -> None:
    (copy / "image_neck_detail.pth").unlink()
    rewrite(copy / "seg" / "model.safetensors", lambda seg: seg.pop("mask_decoder.level_embed.weight"))
    rewrite(copy / "pec" / "model.safetensors", lambda pec: pec.update({"prompt_encoder.no_mask_embed.weight": torch.zeros(1, 128)}))
    (copy / "multiscale_scalar.pth").unlink()
    torch.save([torch.tensor(0.5)], copy / "multiscale_scalar.pth")
    replace(copy / "text_hidden_fcs.pth", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 67125896\n")
    replace(copy / "vlm" / "config.json", json.dumps({"vision_feature_layer": -1}))
    text = complaint(copy)
    for part in (
        "file image_neck_detail.pth: missing",
        "file text_hidden_fcs.pth: a git-lfs pointer of 70 bytes, not the file itself",
        "tensor mask_decoder.level_embed.weight of seg/model.safetensors: missing, expected 2x256",
        "tensor prompt_encoder.no_mask_embed.weight of pec/model.safetensors: found 1x128, expected 256",
        "tensor numbers of multiscale_scalar.pth: found 1, expected 2",
        "setting vision_feature_layer of vlm/config.json: found -1, expected -2",
        "git lfs pull",
    ):
        assert part in text, text
    assert len(text.splitlines()) == 8, text


def test_missing_shards_and_damaged_files_are_named(copy: Path) -> None:
    (copy / "vlm" / "model-00002-of-00003.safetensors").unlink()
    replace(copy / "clm" / "model.safetensors", "<!doctype html>")
    replace(copy / "image_neck_rough.pth", "")
    text = complaint(copy)
    for part in ("file vlm/model-00002-of-00003.safetensors: missing", "file clm/model.safetensors: 15 bytes", "file image_neck_rough.pth: "):
        assert part in text, text
    (copy / "vlm" / "text" / "config.json").unlink()
    assert "file vlm/text/config.json: missing" in complaint(copy)
    with pytest.raises(ValueError, match="there is no folder"):
        load_released(copy / "nowhere", channel_order="rgb")


class Trap:
    """Runs code where it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch trapped",)


def test_a_pickle_that_runs_code_is_not_opened(copy: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (copy / "multiseg_scalar.pth").unlink()
    torch.save([Trap()], copy / "multiseg_scalar.pth")
    assert "file multiseg_scalar.pth: it holds Python objects" in complaint(copy)
    assert not (tmp_path / "trapped").exists()


def test_numbers_may_be_a_tensor_or_a_longer_list(copy: Path, model: GeoPixModel) -> None:
    own = [*model.decoder.token_weights.detach(), torch.tensor(9.0)]
    for kept in (own, torch.stack(own)):
        (copy / "multiseg_scalar.pth").unlink()
        torch.save(kept, copy / "multiseg_scalar.pth")
        torch.testing.assert_close(released.decoder(copy)((64, 64), 64).token_weights, model.decoder.token_weights)


def test_the_tokens_of_a_mask_must_be_the_checkpoints_own(copy: Path) -> None:
    told = json.loads((copy / "tokenizer.json").read_text(encoding="utf-8"))
    told["added_tokens"] = [token for token in told["added_tokens"] if token["content"] != "[SEG4]"]
    replace(copy / "tokenizer.json", json.dumps(told))
    assert "tokens [SEG4] of tokenizer.json: missing" in complaint(copy)


def test_a_tensor_without_a_place_is_told(copy: Path) -> None:
    rewrite(copy / "seg" / "model.safetensors", lambda seg: seg.update({"mask_decoder.extra.weight": torch.zeros(2)}))
    with pytest.warns(UserWarning, match=r"mask_decoder\.extra\.weight have no place in the model"):
        released.decoder(copy)((64, 64), 64)


def test_the_shipped_configuration_answers(weights: Path, cases: list[Case], tmp_path: Path) -> None:
    text = (ROOT / "configs" / "geopix_released.yaml").read_text(encoding="utf-8")
    config = tmp_path / "config.yaml"
    config.write_text(text.replace("&weights GeoPix-ft-sior_rsicap", f"&weights {weights}"), encoding="utf-8")
    Image.fromarray(cases[0].golden["image_rgb"].numpy()).save(tmp_path / "image.png")
    said = geopix(
        "predict", "--config", config, "--trainer.default_root_dir", tmp_path, "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false",
        "--data.predict.images", tmp_path / "image.png", "--data.predict.prompts", json.dumps([cases[0].question]),
    )  # fmt: skip
    assert said.code == 0, said.err
    (line,) = (tmp_path / "predictions" / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    assert "Top[SEG] and bottom[SEG]." in line
