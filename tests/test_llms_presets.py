"""Each shipped language model at a tiny random size of its own architecture, with the file's own LoRA, template and system message."""

from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoConfig, AutoModelForCausalLM, CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration, PreTrainedModel

from geopix.llms.hf import HFLanguageModel, LoRA
from geopix.types import Turn
from tests.tiny import tokenizer

FOLDER = Path(__file__).parents[1] / "configs" / "llm"
BASE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
TIED, GROUPED = {"tie_word_embeddings": True}, {"num_key_value_heads": 2}
# What the repository that each file names holds: architecture, head layout, tying.
FAMILIES = {
    "vicuna_7b_lora": {**BASE, "model_type": "llama"},
    "llava_1_5_7b": {**BASE, "model_type": "llama"},
    "llava_1_5_7b_nf4": {**BASE, "model_type": "llama"},
    "llama3_8b": {**BASE, **GROUPED, "model_type": "llama"},
    "smollm2_360m": {**BASE, **GROUPED, **TIED, "model_type": "llama"},
    "qwen2_5_0_5b": {**BASE, **GROUPED, **TIED, "model_type": "qwen2"},
    "qwen2_5_7b": {**BASE, **GROUPED, "model_type": "qwen2"},
    "qwen3_1_7b": {**BASE, **GROUPED, **TIED, "model_type": "qwen3", "head_dim": 16},
    "qwen3_8b": {**BASE, **GROUPED, "model_type": "qwen3", "head_dim": 16},
    "phi_1_5": {**BASE, "model_type": "phi", "partial_rotary_factor": 0.5},
    "phi_3_5_mini": {**BASE, "model_type": "phi3", "pad_token_id": 0},
}
PRESETS = {path.stem: path for path in sorted(FOLDER.glob("*.yaml")) if not path.stem.startswith("embedded")}
CHAT = ["<|im_start|>", "<|im_end|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
DIALOGUES = [[Turn("the large red ship", "Sure, it is [SEG].")], [Turn("is there a plane?", "no"), Turn("describe it", "Sure, [SEG] and [SEG].")]]


@cache
def written(name: str) -> dict:
    return yaml.safe_load(PRESETS[name].read_text(encoding="utf-8"))["init_args"]


WORDS = cache(tokenizer)


def original(name: str, folder: Path) -> PreTrainedModel:
    """A random checkpoint as the preset's repository would hold it: weights, config and tokenizer."""
    torch.manual_seed(0)
    words = deepcopy(WORDS())
    words.add_special_tokens({"extra_special_tokens": CHAT})
    family = dict(FAMILIES[name], vocab_size=len(words) + 20)  # rows to spare, as most of them have
    kind = family.pop("model_type")
    text = AutoConfig.for_model(kind, **family)
    if "llava" in name:
        tower = CLIPVisionConfig(hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8)
        made = LlavaForConditionalGeneration(LlavaConfig(text_config=text, vision_config=tower, image_token_index=5))
        words.chat_template = "{% for m in messages %}{% for part in m['content'] %}{{ part['text'] }}{% endfor %}{% endfor %}"  # of a processor
    else:
        made = AutoModelForCausalLM.from_config(text)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(std=0.3)
    made.save_pretrained(folder)
    words.save_pretrained(folder)
    return made.eval()


def read(name: str, folder: Path) -> HFLanguageModel:
    """The preset, with the folder as its source, in float32."""
    settings = {key: value for key, value in written(name).items() if key not in {"source", "dtype", "quantise", "lora"}}
    lora = LoRA(**{**written(name)["lora"], "targets": tuple(written(name)["lora"]["targets"]), "dropout": 0.0})
    return HFLanguageModel(str(folder), **settings, lora=lora)


def test_every_preset_has_a_family_and_says_what_it_is() -> None:
    assert set(PRESETS) == set(FAMILIES)
    for name, path in PRESETS.items():
        header = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
        assert header[-1] == "# run with real weights: no", name
        assert any(line.startswith("# size: ") and "   licence: " in line for line in header), name
        assert any(line.startswith("# chat template: ") for line in header), name


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_reads_its_architecture_and_trains_adapters_and_new_rows_alone(name: str, tmp_path: Path, parity: Callable[..., None]) -> None:
    whole = original(name, tmp_path)
    llm = read(name, tmp_path).train()
    for target in written(name)["lora"]["targets"]:
        assert any(f"{target}.lora_A" in key for key in llm.lm.state_dict()), target
    tokens = llm.tokenize(DIALOGUES, 3)
    hidden = llm(llm.embed(tokens.ids), tokens.attend)
    logits = llm.head(hidden[tokens.attend])
    expected = whole(input_ids=tokens.ids, attention_mask=tokens.attend, position_ids=(tokens.attend.cumsum(1) - 1).clamp(min=0)).logits
    names = ("`HFLanguageModel`", f"transformers `{type(whole).__name__}`", f"logits, as in {name}.yaml")
    parity(*names, logits, expected[tokens.attend], atol=2e-4, rtol=1e-4)  # the head's bias too, where there is one

    before = {key: value.clone() for key, value in llm.lm.state_dict().items()}
    taken = tokens.labels[:, 1:] >= 0
    optimizer = torch.optim.SGD([parameter for parameter in llm.parameters() if parameter.requires_grad], lr=1.0)
    old = sides(llm)
    torch.nn.functional.cross_entropy(llm.head(hidden[:, :-1][taken]), tokens.labels[:, 1:][taken]).backward()
    assert all(parameter.grad is not None for parameter in llm.parameters() if parameter.requires_grad)
    optimizer.step()
    for one, two in zip(old, sides(llm), strict=True):
        assert (one != two).any(1).nonzero().flatten().tolist() == sorted(llm.seg_ids)
    for key, value in llm.lm.state_dict().items():
        assert torch.equal(value, before[key]) or ".lora_B." in key or "trainable_tokens_delta" in key, key


def sides(llm: HFLanguageModel) -> list[torch.Tensor]:
    """Rows of the embedding and of the head."""
    head = llm.head(torch.eye(llm.dim)) - llm.head(torch.zeros(1, llm.dim))
    return [llm.embed(torch.arange(head.shape[1])[None])[0].detach().clone(), head.T.detach().clone()]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_answers_in_a_batch_as_alone(name: str, tmp_path: Path) -> None:
    original(name, tmp_path)
    llm = read(name, tmp_path).eval()
    questions = [[Turn("the ship")], [Turn("is there a plane in the image, and where?", "no"), Turn("a ship?")], [Turn("yes")]]
    tokens = llm.tokenize(questions, 2, ask=True)
    ids, states = llm.generate(llm.embed(tokens.ids), tokens.attend, 6)
    for row, question in enumerate(questions):
        alone = llm.tokenize([question], 2, ask=True)
        assert torch.equal(tokens.ids[row][tokens.attend[row]], alone.ids[0])
        one, state = llm.generate(llm.embed(alone.ids), alone.attend, 6)
        steps = one.shape[1]
        assert torch.equal(one[0], ids[row, :steps])
        torch.testing.assert_close(state[0], states[row, : steps + 1], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("name", "text", "end"),
    [
        ("phi_3_5_mini", "<|user|>\n<image>\na<|end|>\n<|assistant|>\none<|end|>\n<|user|>\nb<|end|>\n<|assistant|>\n", "<|end|>"),
        ("qwen3_8b", "<image>\na<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\none<|im_end|>\n<|im_start|>user\nb<|im_end|>\n", "<|im_end|>"),
        ("llava_1_5_7b", "helpful, detailed, and polite answers to the user's questions. USER: <image>\na ASSISTANT: one</s>USER: b ASSISTANT:", "</s>"),
    ],
)
def test_templates_that_are_written_out(name: str, text: str, end: str, tmp_path: Path) -> None:
    original(name, tmp_path)
    llm = read(name, tmp_path)
    assert text in llm.chat.tokenizer.decode(llm.tokenize([[Turn("a", "one"), Turn("b")]], 1, ask=True).ids[0])
    full = llm.tokenize([[Turn("a", "one"), Turn("b", "[SEG]")]], 1)
    said = llm.chat.tokenizer.decode(full.labels[full.labels >= 0]).replace(" ", "")
    assert said == f"one{end}" + "".join(f"[SEG{index}]" for index in range(6)) + end
