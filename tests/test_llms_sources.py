"""Where language models come from: LLaVA checkpoints, quantised weights, and all that may be missing, told at once."""

import json
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerBase,
)

from geopix.connectors.mlp import MLPConnector
from geopix.llms import sources
from geopix.llms.hf import HFLanguageModel, LoRA
from geopix.llms.sources import missing_artefacts
from geopix.types import Turn
from tests.tiny import LLAMA, tokenizer

WORDS = cache(tokenizer)


def words() -> PreTrainedTokenizerBase:
    return deepcopy(WORDS())


# ---------------------------------------------------------------- LLaVA


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> tuple[LlavaForConditionalGeneration, Path]:
    torch.manual_seed(0)
    folder, vocabulary = tmp_path_factory.mktemp("llava"), words()
    text = LlamaConfig(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, vocab_size=len(vocabulary) + 20)
    tower = CLIPVisionConfig(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8)
    model = LlavaForConditionalGeneration(LlavaConfig(text_config=text, vision_config=tower, image_token_index=len(vocabulary))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    model.save_pretrained(folder)
    vocabulary.save_pretrained(folder)
    return model, folder


def as_on_the_hub(name: str) -> str:
    """The names that llava-hf's repositories use."""
    for inside, outside in (("model.language_model.", "language_model.model."), ("lm_head", "language_model.lm_head")):
        if name.startswith(inside):
            return name.replace(inside, outside, 1)
    return name.removeprefix("model.").replace("vision_tower.", "vision_tower.vision_model.")


LAYOUTS: dict[str, Callable[[str], str] | None] = {"as saved by transformers 5": None, "as on the hub": as_on_the_hub, "as in the module": str}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_language_model_and_the_projector_of_a_llava_are_the_originals(
    layout: str, llava, tmp_path: Path, caplog: pytest.LogCaptureFixture, parity: Callable[..., None]
) -> None:
    model, folder = llava
    rename = LAYOUTS[layout]
    if rename is not None:
        for file in folder.iterdir():
            if file.suffix != ".safetensors":
                (tmp_path / file.name).write_bytes(file.read_bytes())
        save_file({rename(key): value.contiguous() for key, value in model.state_dict().items()}, tmp_path / "model.safetensors", metadata={"format": "pt"})
        folder = tmp_path
    llm = HFLanguageModel(str(folder)).eval()
    connector = MLPConnector([7, 16], 32, weights=str(folder))
    image = torch.randn(2, 16, 3, 4)
    tokens = llm.tokenize([[Turn("the ship", "it is [SEG].")], [Turn("is there a plane in the image?", "no")]], 12)
    with torch.no_grad():
        visual = connector([torch.empty(2, 7, 6, 8), image])
        original = f"transformers `{type(model).__name__}`"
        parity("`MLPConnector`", original, "tokens", visual, model.model.multi_modal_projector(image.flatten(2).transpose(1, 2)), rtol=1.3e-6)
        embeds = llm.embed(tokens.ids).masked_scatter((tokens.ids == llm.image_id)[..., None], visual)
        states = llm(embeds, tokens.attend)
        positions = (tokens.attend.cumsum(1) - 1).clamp(min=0)
        expected = model.model.language_model(inputs_embeds=embeds, attention_mask=tokens.attend, position_ids=positions).last_hidden_state
        parity("`HFLanguageModel`", original, "embeddings", llm.embed(tokens.ids), model.get_input_embeddings()(tokens.ids), rtol=1.3e-6)
        parity("`HFLanguageModel`", original, "states", states[tokens.attend], expected[tokens.attend])
        parity("`HFLanguageModel`", original, "logits of the same states", llm.head(states[:, -1]), model.lm_head(states[:, -1]), rtol=1.3e-6)
    assert sum(parameter.numel() for parameter in llm.parameters()) == sum(
        parameter.numel() for part in (model.model.language_model, model.lm_head) for parameter in part.parameters()
    ), "no tower, no projector"
    assert "UNEXPECTED" not in caplog.text


def test_a_llava_that_lacks_a_tensor_of_its_language_model_is_refused(llava, tmp_path: Path) -> None:
    for file in llava[1].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    kept = {key: value for key, value in load_file(tmp_path / "model.safetensors").items() if "layers.1.mlp" not in key or "language" not in key}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lack 3 of the tensors of LlamaForCausalLM, such as model\.layers\.1\.mlp\.down_proj"):
        HFLanguageModel(str(tmp_path))


def test_projectors_that_do_not_fit_are_refused(llava, tmp_path: Path) -> None:
    _, folder = llava
    with pytest.raises(ValueError, match=r"layers of .*\(32, 16\).* need .*\(32, 24\).*trained between"):
        MLPConnector([24], 32, weights=str(folder))
    with pytest.raises(ValueError, match=r"no projector could be read from .*config\.json is not there"):
        MLPConnector([16], 32, weights=str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"projector_hidden_act": "relu"}))
    shards = {"a.safetensors": ["linear_1"], "b.safetensors": ["linear_2"]}
    tensors = {key: value for key, value in load_file(folder / "model.safetensors").items() if "projector" in key}
    for file, layers in shards.items():
        save_file({key: value for key, value in tensors.items() if any(layer in key for layer in layers)}, tmp_path / file)
    index = {key: file for file, layers in shards.items() for key in tensors if any(layer in key for layer in layers)}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {**index, "lm_head.weight": "not_there.safetensors"}}))
    with pytest.raises(ValueError, match=r"uses 'relu'.*expected 'gelu'"):
        MLPConnector([16], 32, weights=str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    read = MLPConnector([16], 32, weights=str(tmp_path))
    torch.testing.assert_close(read.layers[2].weight, tensors["multi_modal_projector.linear_2.weight"])


# ---------------------------------------------------------------- fewer bits


def test_quantise_without_library_or_gpu_is_one_error_before_weights_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "model.safetensors").write_text("never read")
    monkeypatch.setattr(sources, "is_bitsandbytes_available", lambda: False)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r'missing here: the library bitsandbytes and a GPU\. Run `pip install "geopix\[quantised\]"`'):
        HFLanguageModel(str(tmp_path), quantise="nf4", lora=LoRA())
    monkeypatch.setattr(sources, "is_bitsandbytes_available", lambda: True)
    with pytest.raises(ValueError, match=r"missing here: a GPU\."):
        HFLanguageModel(str(tmp_path), quantise="int8")
    with pytest.raises(ValueError, match=r"quantise: 'fp4' is for weights that are read; found a config"):
        HFLanguageModel(LLAMA, tokenizer=words(), quantise="fp4")


@pytest.mark.parametrize("quantise", ["nf4", "fp4", "int8"])
def test_what_the_library_is_asked_for(quantise: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    HFLanguageModel(LLAMA, tokenizer=words()).lm.save_pretrained(tmp_path)
    monkeypatch.setattr(sources, "is_bitsandbytes_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    asked, load = [], AutoModelForCausalLM.from_pretrained

    def from_pretrained(name: str, *, quantization_config: BitsAndBytesConfig, **others: object) -> object:
        asked.append((quantization_config, others["dtype"]))
        return load(name, **others)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", from_pretrained)
    frozen = HFLanguageModel(str(tmp_path), tokenizer=words(), dtype="bfloat16", quantise=quantise)  # type: ignore[arg-type]
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    adapted = HFLanguageModel(str(tmp_path), tokenizer=words(), dtype="bfloat16", quantise=quantise, lora=LoRA())  # type: ignore[arg-type]
    assert all("lora_" in name or "trainable_tokens" in name for name, parameter in adapted.named_parameters() if parameter.requires_grad)
    for config, dtype in asked:
        assert dtype == torch.bfloat16
        if quantise == "int8":
            assert (config.load_in_8bit, config.load_in_4bit) == (True, False)
            continue
        assert (config.load_in_4bit, config.bnb_4bit_quant_type, config.bnb_4bit_use_double_quant) == (True, quantise, True)
        assert config.bnb_4bit_compute_dtype == torch.bfloat16
    assert len(asked) == 2


def test_scales_of_frozen_weights_stay_out_of_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    HFLanguageModel(LLAMA, tokenizer=words()).lm.save_pretrained(tmp_path)
    monkeypatch.setattr(sources, "is_bitsandbytes_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    load = AutoModelForCausalLM.from_pretrained
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda name, *, quantization_config, **others: load(name, **others))
    llm = HFLanguageModel(str(tmp_path), tokenizer=words(), quantise="nf4", lora=LoRA())
    plain = set(llm.state_dict())

    def with_scales(module: torch.nn.Module, state: dict, prefix: str, metadata: object) -> None:
        state[f"{prefix}weight.absmax"] = torch.ones(3)  # as a 4-bit layer of bitsandbytes writes them

    for layer in llm.lm.model.layers:
        layer.mlp.up_proj.register_state_dict_post_hook(with_scales)
    assert set(llm.state_dict()) == plain
    assert set(torch.nn.ModuleDict({"llm": llm}).state_dict()) == {f"llm.{key}" for key in plain}


# ---------------------------------------------------------------- what is missing


def sharded(folder: Path, *there: str) -> None:
    index = {"metadata": {"total_size": 13_476_839_424}, "weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    for file in there:
        (folder / file).write_text("x")


def test_a_folder_tells_all_that_it_lacks_at_once(tmp_path: Path) -> None:
    assert missing_artefacts(str(tmp_path)) == [
        "config.json",
        "the weights (model.safetensors, or its index and shards)",
        "the tokenizer (tokenizer.json or tokenizer.model)",
    ]
    with pytest.raises(ValueError, match=r"source: the folder .* lacks config\.json; the weights .*; the tokenizer .*\. Check that the download is complete"):
        HFLanguageModel(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    sharded(tmp_path, "model-00001-of-00002.safetensors", "tokenizer.model")
    assert missing_artefacts(str(tmp_path)) == ["1 of 2 shards of the weights (model-00002-of-00002.safetensors, 13.5 GB in all)"]
    sharded(tmp_path, "model-00002-of-00002.safetensors")
    assert missing_artefacts(str(tmp_path)) == []
    (tmp_path / "tokenizer.model").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    (tmp_path / "model.safetensors.index.json").write_text("{")
    first, second = missing_artefacts(str(tmp_path))
    assert first.startswith("a readable model.safetensors.index.json (")
    assert second.startswith("tokenizer.model itself (it is a pointer of git-lfs")


def test_older_names_of_weights_and_tokenizers_count(tmp_path: Path) -> None:
    for file in ("config.json", "pytorch_model.bin", "vocab.json"):
        (tmp_path / file).write_text("{}")
    assert missing_artefacts(str(tmp_path)) == []


def test_source_and_tokenizer_are_missed_in_one_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"source: .*nowhere' is not a folder.* tokenizer: the folder .* lacks the tokenizer"):
        HFLanguageModel(str(tmp_path / "nowhere"), tokenizer=str(tmp_path))


def cached(root: Path, name: str, *files: str) -> None:
    """A repository in the hub's cache, with some of its files."""
    repository = root / ("models--" + name.replace("/", "--"))
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots" / ("0" * 40)).mkdir(parents=True)
    for file in files:
        (repository / "snapshots" / ("0" * 40) / file).write_text("{}")


def test_a_hub_name_that_is_not_cached_tells_all_that_is_missing_when_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    cached(tmp_path, "owner/half", "config.json", "tokenizer.json")
    with pytest.raises(ValueError, match=r"HF_HUB_OFFLINE is set\); missing: config\.json; the weights .*; the tokenizer .*run `hf download owner/none`"):
        HFLanguageModel("owner/none")
    assert missing_artefacts("owner/half") == ["the weights (model.safetensors, or its index and shards)"]
    with pytest.raises(ValueError, match=r"source: 'owner/half' .*missing: the weights .* tokenizer: 'owner/none' .*missing: the tokenizer"):
        HFLanguageModel("owner/half", tokenizer="owner/none")
    assert len(missing_artefacts("not/a/name")) == 3


def test_when_the_hub_may_be_asked_nothing_is_refused_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    sources.check_at_hand("owner/none", None)

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("We couldn't connect to the hub.\nMore about it")

    monkeypatch.setattr(sources.AutoConfig, "from_pretrained", unreachable)
    with pytest.raises(ValueError, match=r"couldn't connect to the hub\. It is neither .* missing: config\.json; the weights .*hf download owner/none"):
        HFLanguageModel("owner/none", tokenizer=words())
