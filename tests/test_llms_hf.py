"""The language model, on random weights of a few thousand parameters."""

from collections.abc import Callable, Iterable
from copy import deepcopy
from functools import cache
from pathlib import Path

import jsonargparse
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from tokenizers.decoders import Metaspace, WordPiece
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from geopix.contracts import LanguageModel
from geopix.llms.hf import HFLanguageModel, LoRA
from geopix.llms.template import Chat
from geopix.llms.tokenizer import train_tokenizer
from geopix.types import Tokens, Turn
from tests import tiny

LLAMA = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
QWEN = {**LLAMA, "model_type": "qwen2", "num_key_value_heads": 2, "tie_word_embeddings": True}
NEOX = {**LLAMA, "model_type": "gpt_neox"}
BLOOM = {"model_type": "bloom", "hidden_size": 32, "n_layer": 2, "n_head": 4}  # positions by ALiBi, not by rotation
ANSWERS = ["Sure, it is [SEG].", "They are [SEG] and [SEG], at {<3><57><60><100>}.", "There is no ship in this image.", "[SEG]", "[SEG][SEG] yes"]
LINES = ["Segment the ship at {<12><100>}.", *ANSWERS, "How many ships are there in the image?", "it is , and the a USER: ASSISTANT:"]


class Words:
    def texts(self) -> Iterable[str]:
        yield from LINES


WORDS = Words()
TRAINED = cache(train_tokenizer)


def tokenizer() -> PreTrainedTokenizerBase:
    return deepcopy(TRAINED(WORDS, vocab_size=512))


@pytest.fixture(scope="module")
def llama() -> HFLanguageModel:
    torch.manual_seed(0)
    return HFLanguageModel(LLAMA, tokenizer=tokenizer()).eval()


def lively(llm: HFLanguageModel) -> HFLanguageModel:
    """Large random weights, so that answers vary and a wrong position would show."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in llm.named_parameters():
            if parameter.ndim == 2 and "lora" not in name:
                parameter.normal_(std=0.4)
    return llm.eval()


def asked(llm: HFLanguageModel, prompts: Iterable[str], num_visual: int = 3) -> Tokens:
    return llm.tokenize([[Turn(prompt)] for prompt in prompts], num_visual, ask=True)


PROMPTS = ["the ship", "How many ships are there in the image, and where?", "a", "Segment the ship at {<12><100>}."]


# ---------------------------------------------------------------- tokens


@pytest.mark.parametrize("answer", ANSWERS)
def test_labels_are_exactly_the_answer_and_decode_gives_it_back(llama: HFLanguageModel, answer: str) -> None:
    tokens = llama.tokenize([[Turn("the ship", answer)]], 4)
    labels = tokens.labels[tokens.labels >= 0]
    assert llama.chat.tokenizer.decode(labels) == " " + answer.replace("[SEG]", "[SEG0][SEG1][SEG2][SEG3][SEG4][SEG5]") + "</s>"
    assert (tokens.ids[tokens.labels >= 0] == labels).all()
    assert llama.decode(labels[None]) == [answer]


def test_every_turn_is_supervised_and_the_image_stands_once_at_the_front(llama: HFLanguageModel) -> None:
    tokens = llama.tokenize([[Turn("the ship", "one"), Turn("and?", "two [SEG]")]], 5)
    text = llama.chat.tokenizer.decode(tokens.ids[0])
    assert text.startswith("<s>USER: " + "<image>" * 5 + "\nthe ship ASSISTANT: one</s>USER: and? ASSISTANT:")
    assert int((tokens.ids == llama.image_id).sum()) == 5
    assert llama.chat.tokenizer.decode(tokens.labels[tokens.labels >= 0]).startswith(" one</s> two [SEG0]")
    assert int((llama.tokenize([[Turn("a", "b")]], 0).ids == llama.image_id).sum()) == 0


def test_prompt_ids_do_not_depend_on_the_answer(llama: HFLanguageModel) -> None:
    prompt = llama.tokenize([[Turn("the ship", "one"), Turn("and?")]], 2, ask=True).ids[0]
    for answer in ["[SEG]", "ship", "1", "\n\nx", ". . ."]:
        full = llama.tokenize([[Turn("the ship", "one"), Turn("and?", answer)]], 2)
        assert torch.equal(full.ids[0, : len(prompt)], prompt)
        assert (full.labels[0, len(prompt) :] >= 0).all()


def test_left_padding(llama: HFLanguageModel) -> None:
    tokens = asked(llama, PROMPTS)
    assert (tokens.attend.long().diff(dim=1) >= 0).all()
    assert (tokens.ids[~tokens.attend] == llama.chat.pad_id).all()
    assert tokens.attend.sum(1).tolist() == [asked(llama, [prompt]).ids.shape[1] for prompt in PROMPTS]


@pytest.mark.parametrize("text", ["<image>", "[SEG0] and [SEG5]", "</s>", "<s><pad>", "x<image>", "<ima<image>ge>", "\ue002</s>\ue003", "\ue0000\ue001"])
def test_what_a_user_types_never_becomes_a_special_token(llama: HFLanguageModel, text: str) -> None:
    plain, typed = asked(llama, ["the ship"]).ids, asked(llama, [f"the {text} ship"]).ids
    special = torch.tensor(sorted(llama.chat.special_ids))
    assert torch.isin(typed, special).sum() == torch.isin(plain, special).sum()
    assert f"the {text} ship" in llama.chat.tokenizer.decode(typed[0])
    answer = llama.tokenize([[Turn("a", f"it is {text}!")]], 1)
    assert torch.isin(answer.ids, special).sum() == torch.isin(plain, special).sum() - 2 + 1
    assert llama.decode(answer.labels[answer.labels >= 0][None]) == [f"it is {text}!"]


def test_incomplete_runs_are_dropped_and_spelled_ones_are_no_seg(llama: HFLanguageModel) -> None:
    seg, word = list(llama.seg_ids), list(llama.chat.encode(" ship"))
    rows = [[*word, *seg[:5], *word], [*seg, *seg[:3]], [*seg[1:], *seg], [*word, 2, *seg], [*llama.chat.encode("\ue002[SEG]\ue003")]]
    assert [llama.chat.decode(row) for row in rows] == ["ship ship", "[SEG]", "[SEG]", "ship", "(SEG)"]


def test_refused_dialogues(llama: HFLanguageModel) -> None:
    with pytest.raises(ValueError, match="dialogue 1 of the batch: turn 0 has no supervised token"):
        llama.tokenize([[Turn("a", "b")], [Turn("a")]], 1)
    with pytest.raises(ValueError, match="found 0 turns"):
        llama.tokenize([[]], 1)
    with pytest.raises(ValueError, match=r"found 1 turns and \d+ tokens, 3000 of them visual.*2048"):
        llama.tokenize([[Turn("a", "b")]], 3000)
    assert llama.tokenize([[Turn("a", ""), Turn("b")]], 1, ask=True).ids.shape[0] == 1  # an empty answer of the model itself is history


def word_level() -> Tokenizer:
    made = Tokenizer(models.WordLevel(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.train_from_iterator([*LINES, "<pad> [SEG0]"], trainers.WordLevelTrainer(special_tokens=["<unk>", "<s>", "</s>", "<pad>"], show_progress=False))
    return made


def word_piece() -> Tokenizer:
    made = Tokenizer(models.WordPiece(unk_token="<unk>"))
    made.pre_tokenizer, made.decoder = pre_tokenizers.BertPreTokenizer(), WordPiece(cleanup=False)
    made.train_from_iterator(LINES, trainers.WordPieceTrainer(vocab_size=300, special_tokens=["<unk>", "<s>", "</s>", "<pad>"], show_progress=False))
    return made


def unigram() -> Tokenizer:
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(prepend_scheme="first"), Metaspace(prepend_scheme="first")
    special = ["<unk>", "<s>", "</s>", "<pad>"]
    made.train_from_iterator(LINES, trainers.UnigramTrainer(vocab_size=120, special_tokens=special, unk_token="<unk>", show_progress=False))
    return made


@pytest.mark.parametrize("make", [word_level, word_piece, unigram])
def test_other_kinds_of_tokenizers(make) -> None:
    kind = PreTrainedTokenizerFast(tokenizer_object=make(), unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    chat = Chat(kind, seg_tokens=3)
    assert len({*chat.seg_ids, chat.image_id}) == 4
    ids, labels = chat.ids([Turn("Segment the ship <pad> <image>", "They are [SEG] and [SEG] yes")], 4, ask=False)
    assert (ids.count(chat.image_id), ids.count(chat.seg_ids[1]), ids.count(kind.pad_token_id)) == (4, 2, 0)
    answer = chat.decode([label for label in labels if label >= 0])
    assert answer == ("They are [SEG] and [SEG] yes" if make is unigram else "They are[SEG] and[SEG] yes")  # the others forget white space


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for m in messages %}{% if loop.last %}NOW {% endif %}{{ m['content'] }}{{ eos_token }}{% endfor %}", "rewrites earlier turns|depend on its"),
        ("{% for m in messages %}{{ m['content'] }}\n{% endfor %}", "no special token ends an answer"),
        ("{{ raise_exception('only with a picture') }}", "only with a picture"),
    ],
)
def test_refused_templates(template: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Chat(tokenizer(), seg_tokens=1, template=template)


def test_chatml_template_supervises_to_the_end_of_the_turn() -> None:
    made = tokenizer()
    made.add_special_tokens({"extra_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    made.chat_template = (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    chat = Chat(made, seg_tokens=1, system="Be brief.")
    ids, labels = chat.ids([Turn("a", "one"), Turn("b", "[SEG]")], 1, ask=False)
    start = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n<image>\na<|im_end|>\n<|im_start|>assistant\none<|im_end|>\n<|im_start|>user\nb"
    assert made.decode(ids).startswith(start)
    assert made.decode([label for label in labels if label >= 0]) == "one<|im_end|>[SEG0]<|im_end|>"
    assert set(made.convert_tokens_to_ids(["<|im_end|>", "</s>"])) == chat.stop_ids


# ---------------------------------------------------------------- states and answers


@pytest.mark.parametrize("config", [LLAMA, QWEN, NEOX, BLOOM])
def test_a_row_of_a_batch_is_the_row_alone(config: dict) -> None:
    llm = lively(HFLanguageModel(config, tokenizer=tokenizer()))
    tokens = asked(llm, PROMPTS)
    states = llm(llm.embed(tokens.ids), tokens.attend)
    ids, hidden = llm.generate(llm.embed(tokens.ids), tokens.attend, 12)
    assert states.isfinite().all()
    assert len(set(map(tuple, ids.tolist()))) > 1
    for row, prompt in enumerate(PROMPTS):
        alone = asked(llm, [prompt])
        torch.testing.assert_close(llm(llm.embed(alone.ids), alone.attend)[0], states[row][tokens.attend[row]], atol=1e-4, rtol=1e-4)
        one, state = llm.generate(llm.embed(alone.ids), alone.attend, 12)
        steps = one.shape[1]
        assert torch.equal(one[0], ids[row, :steps])
        torch.testing.assert_close(state[0], hidden[row, : steps + 1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("config", [LLAMA, QWEN, NEOX, BLOOM])
def test_generated_states_are_those_of_one_forward(config: dict) -> None:
    llm = lively(HFLanguageModel(config, tokenizer=tokenizer()))
    tokens = asked(llm, PROMPTS)
    ids, hidden = llm.generate(llm.embed(tokens.ids), tokens.attend, 9)
    whole, attend = torch.cat([tokens.ids, ids], 1), torch.cat([tokens.attend, torch.ones_like(ids, dtype=torch.bool)], 1)
    states = llm(llm.embed(whole), attend)[:, -ids.shape[1] - 1 :]
    torch.testing.assert_close(states, hidden, atol=1e-4, rtol=1e-4)
    predicted = llm.head(states[:, :-1].flatten(0, 1)).argmax(-1).view_as(ids)
    ended = torch.isin(ids, torch.tensor(sorted(llm.chat.stop_ids))).cumsum(1).bool().roll(1, 1)
    ended[:, 0] = False
    assert torch.equal(predicted[~ended], ids[~ended])


def test_rows_stop_at_their_end_and_are_padded(llama: HFLanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    script = iter([[5, 2], [2, 9], [9, 9], [9, 9]])
    monkeypatch.setattr(llama, "head", lambda states: torch.nn.functional.one_hot(torch.tensor(next(script)), 600).float())
    tokens = asked(llama, ["a", "the ship"])
    ids, hidden = llama.generate(llama.embed(tokens.ids), tokens.attend, 4)
    assert ids.tolist() == [[5, 2], [2, llama.chat.pad_id]]
    assert hidden.shape == (2, 3, 32)


def test_generate_in_training_mode_has_no_dropout_and_keeps_the_mode() -> None:
    llm = lively(HFLanguageModel(LLAMA, tokenizer=tokenizer(), lora=LoRA(dropout=0.9), gradient_checkpointing=True))
    tokens = asked(llm, PROMPTS)
    expected = llm.generate(llm.embed(tokens.ids), tokens.attend, 5)
    llm.train()
    for one, two in zip(llm.generate(llm.embed(tokens.ids), tokens.attend, 5), expected, strict=True):
        torch.testing.assert_close(one, two)
    assert llm.training
    with pytest.raises(ValueError, match="max_new_tokens: found 0"):
        llm.generate(llm.embed(tokens.ids), tokens.attend, 0)


def test_gradient_checkpointing_changes_no_gradient() -> None:
    found = []
    for checkpointing in (False, True):
        llm = lively(HFLanguageModel(LLAMA, tokenizer=tokenizer(), gradient_checkpointing=checkpointing)).train()
        tokens = asked(llm, PROMPTS)
        llm(llm.embed(tokens.ids), tokens.attend)[:, -1].square().sum().backward()
        found.append([parameter.grad for parameter in llm.parameters() if parameter.grad is not None])
    assert len(found[0]) > 10
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two)


# ---------------------------------------------------------------- weights


@pytest.mark.parametrize("config", [LLAMA, QWEN, NEOX])
def test_weights_of_a_folder_give_the_logits_of_the_original(config: dict, tmp_path: Path, parity: Callable[..., None]) -> None:
    torch.manual_seed(0)
    made = tokenizer()
    settings = {key: value for key, value in config.items() if key != "model_type"}
    original = AutoModelForCausalLM.from_config(AutoConfig.for_model(config["model_type"], **settings, vocab_size=len(made))).eval()
    original.save_pretrained(tmp_path)
    made.save_pretrained(tmp_path)
    ids = torch.randint(3, len(made), (2, 9))
    for lora in (None, LoRA(targets=("query_key_value",) if config is NEOX else ("q_proj", "v_proj"))):
        llm = HFLanguageModel(str(tmp_path), lora=lora).eval()
        states = llm(llm.embed(ids), torch.ones_like(ids, dtype=torch.bool))
        logits = llm.head(states.flatten(0, 1))[:, : len(made)].unflatten(0, (2, 9))
        compared = "logits" if lora is None else "logits, with fresh LoRA"
        parity("`HFLanguageModel`", f"transformers `{type(original).__name__}`", compared, logits, original(ids).logits)


def test_rotary_tables_survive_a_state_dict(tmp_path: Path) -> None:
    torch.manual_seed(0)
    one, two = (HFLanguageModel(LLAMA, tokenizer=tokenizer()).eval() for _ in range(2))
    torch.save(one.state_dict(), tmp_path / "state.pt")
    two.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    tokens = asked(one, PROMPTS)
    torch.testing.assert_close(one(one.embed(tokens.ids), tokens.attend), two(two.embed(tokens.ids), tokens.attend))


@pytest.mark.parametrize("config", [LLAMA, QWEN])
def test_lora_trains_adapters_and_the_rows_of_new_tokens_on_both_sides(config: dict) -> None:
    torch.manual_seed(0)
    llm = HFLanguageModel(config, tokenizer=tokenizer(), lora=LoRA(dropout=0.0))
    before = {name: value.clone() for name, value in llm.lm.state_dict().items()}
    sides = [llm.lm.get_input_embeddings(), llm.lm.get_output_embeddings()]
    rows = torch.eye(sides[0].weight.shape[0])

    def weights() -> list[torch.Tensor]:
        return [sides[0](torch.arange(len(rows))).detach().clone(), sides[1](torch.eye(32)).T.detach().clone()]

    old = weights()
    tokens = llm.tokenize([[Turn("the ship", "it is [SEG].")], [Turn("a", "b")]], 2)
    optimizer = torch.optim.SGD([parameter for parameter in llm.parameters() if parameter.requires_grad], lr=1.0)
    states = llm(llm.embed(tokens.ids), tokens.attend)[:, :-1]
    taken = tokens.labels[:, 1:] >= 0
    torch.nn.functional.cross_entropy(llm.head(states[taken]), tokens.labels[:, 1:][taken]).backward()
    optimizer.step()
    for one, two in zip(old, weights(), strict=True):
        changed = (one != two).any(1).nonzero().flatten().tolist()
        assert changed == sorted(llm.seg_ids)
    for name, value in llm.lm.state_dict().items():
        assert torch.equal(value, before[name]) or "lora_" in name or "trainable_tokens_delta" in name, name
    again = HFLanguageModel(config, tokenizer=tokenizer(), lora=LoRA(dropout=0.0))
    again.load_state_dict(llm.state_dict())
    torch.testing.assert_close(again(again.embed(tokens.ids), tokens.attend), llm(llm.embed(tokens.ids), tokens.attend))
    torch.testing.assert_close(again.head(states[taken]), llm.head(states[taken]))


def test_a_bfloat16_base_keeps_float32_adapters() -> None:
    llm = HFLanguageModel(LLAMA, tokenizer=tokenizer(), lora=LoRA(), dtype="bfloat16")
    tokens = asked(llm, PROMPTS)
    states = llm(llm.embed(tokens.ids).float(), tokens.attend)
    llm.head(states[:, -1]).sum().backward()
    assert states.isfinite().all()
    assert states.dtype == torch.bfloat16
    assert {parameter.dtype for parameter in llm.parameters() if parameter.requires_grad} == {torch.float32}
    assert all(parameter.grad is not None for name, parameter in llm.named_parameters() if "lora_B" in name)
    assert llm.generate(llm.embed(tokens.ids), tokens.attend, 2)[0].shape == (4, 2)


def test_another_tokenizer_is_refused_by_the_checkpoint(llama: HFLanguageModel) -> None:
    other = HFLanguageModel(LLAMA, tokenizer=tokenizer(), seg_tokens=2)
    with pytest.raises(ValueError, match="trained with another tokenizer") as error:
        other.load_state_dict(llama.state_dict())
    assert str(len(llama.chat.tokenizer)) in str(error.value)
    assert str(len(other.chat.tokenizer)) in str(error.value)


# ---------------------------------------------------------------- errors


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    made = tokenizer()
    with pytest.raises(ValueError, match=r"nowhere.*is not a folder"):
        HFLanguageModel(str(tmp_path / "nowhere"), tokenizer=made)
    with pytest.raises(ValueError, match="a config as source has none"):
        HFLanguageModel(LLAMA)
    with pytest.raises(ValueError, match=r"lacks config\.json; the weights .*download is complete"):
        HFLanguageModel(str(tmp_path), tokenizer=made)
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(ValueError, match=r"model.safetensors.*git lfs pull"):
        HFLanguageModel(str(tmp_path), tokenizer=made)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_text("no tensors")
    with pytest.raises(ValueError, match=r"no language model could be read from .*config\.json"):
        HFLanguageModel(str(tmp_path), tokenizer=made)


def test_a_name_that_is_not_at_hand_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match="neither a local folder nor complete in the local cache"):
        HFLanguageModel("owner/no-such-model", tokenizer=tokenizer())


def test_weights_that_lack_tensors_are_refused(tmp_path: Path) -> None:
    small = HFLanguageModel(LLAMA, tokenizer=tokenizer())
    state = {name: value for name, value in small.lm.state_dict().items() if "layers.1" not in name}
    small.lm.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(ValueError, match=r"lack \d+ of the tensors"):
        HFLanguageModel(str(tmp_path), tokenizer=tokenizer())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({**LLAMA, "hiden_size": 3}, "no hiden_size"),
        ({**LLAMA, "vocab_size": 3}, "without vocab_size"),
        ({**LLAMA, "model_type": "lama"}, "model_type 'lama'"),
        ({**LLAMA, "model_type": "gemma2", "head_dim": 8}, "final_logit_softcapping"),
    ],
)
def test_refused_configs(source: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HFLanguageModel(source, tokenizer=tokenizer())


def test_unknown_lora_targets_name_the_choices() -> None:
    with pytest.raises(ValueError, match=r"expected some of .*q_proj"):
        HFLanguageModel(LLAMA, tokenizer=tokenizer(), lora=LoRA(targets=("q_proj", "qkv")))


@pytest.mark.parametrize("source", [LLAMA, "owner/name"])
def test_yaml_can_say_all_of_it(source: object) -> None:
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--llm", type=LanguageModel)
    words = {"class_path": "geopix.llms.tokenizer.train_tokenizer", "init_args": {"corpus": {"class_path": f"{__name__}.Words"}, "vocab_size": 512}}
    settings = {"source": source, "tokenizer": words, "lora": {"rank": 2, "targets": ["q_proj"]}, "seg_tokens": 2}
    parsed = parser.parse_object({"llm": {"class_path": "geopix.llms.hf.HFLanguageModel", "init_args": settings}})
    assert parsed.llm.init_args.source == source
    again = parser.parse_string(parser.dump(parsed))
    assert again.llm.init_args.source == source
    if source is LLAMA:
        built = parser.instantiate_classes(again).llm
        assert len(built.seg_ids) == 2
        assert built.dim == 32
        assert built.lm.get_parameter("model.layers.0.self_attn.q_proj.lora_A.default.weight").shape == (2, 32)


def test_weights_that_are_read_train_as_random_ones_do(tmp_path: Path) -> None:
    """transformers reads models in evaluation mode, in which it would not checkpoint activations."""
    built = tiny.TINY[HFLanguageModel]()
    built.lm.save_pretrained(tmp_path)
    built.chat.tokenizer.save_pretrained(tmp_path)
    read = HFLanguageModel(tmp_path, gradient_checkpointing=True)
    assert all(module.training for module in read.modules())
