"""Rewording: whatever a language model writes, what is kept selects exactly the same object."""

import pickle
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from geopix.data.build.compose import Choices, compose
from geopix.data.build.hf import LanguageModelRewriter, VisionLanguageModelRewriter, filled, first_line
from geopix.data.build.rewrite import Rewriter, Rewriting
from geopix.data.build.words import Vocabulary
from geopix.data.records import Record, instance
from geopix.data.scenes import Scenes
from geopix.rle import encode_rle
from tests.build_checker import mistakes


class Script:
    """Answers by a table; what is not in it comes back as it was."""

    def __init__(self, table: dict[str, str]) -> None:
        self.table = table

    def rewrite(self, text: str, facts: Mapping[str, Any]) -> str:
        assert facts["selects"]
        assert facts["box"]
        return self.table.get(text, text)


class Careless:
    """Says things anew without care: sometimes rightly, sometimes of another object, sometimes in words that nobody knows."""

    def __init__(self) -> None:
        self.calls = 0

    def rewrite(self, text: str, facts: Mapping[str, Any]) -> str:
        self.calls += 1
        name = facts["expression"]["class"]
        forms = (f"the {name}", f"the red {name}", text.replace("largest", "biggest"), f"the {name} in the upper left", f"not {text}", f"{text} near a crane",
                 text.replace("the ", "please segment the ", 1), f"the {name} situated on the left side of the image",
                 f"{text} in this picture", "")  # fmt: skip
        return forms[self.calls % len(forms)]


def record_of(scene: Any, folder: Path) -> Record:
    cv2.imwrite(str(folder / "a.png"), scene.image[..., ::-1])
    things = [instance(number, dict(encode_rle(torch.from_numpy(one.mask))), of_class=one.name) for number, one in enumerate(scene.instances)]
    return {"image": "a.png", "key": "a", "gsd": scene.gsd, "instances": things, "dialogues": []}


def built(record: Record, folder: Path, rewriter: Rewriter | None) -> tuple[Record, Counter[str]]:
    classes = {one["class"]: {one["class"]: 1} for one in record["instances"]}
    tally: Counter[str] = Counter()
    made = compose(record, lambda path: folder / path, Choices(), classes, None if rewriter is None else Rewriting(rewriter, Vocabulary(classes)), tally)
    assert made is not None
    return made, tally


def said(record: Record) -> list[dict[str, Any]]:
    return [proof for dialogue in record["dialogues"] for proof in dialogue["provenance"]["sentences"]]


def test_a_rewrite_is_kept_where_it_selects_the_same_and_refused_where_not(tmp_path: Path) -> None:
    scene = Scenes("standard", "train", 128).scene(3)  # three helicopters and a helipad
    record = record_of(scene, tmp_path)
    plain, _ = built(record, tmp_path, None)
    proofs = [proof for dialogue in plain["dialogues"] if dialogue["task"] == "segment/single" for proof in dialogue["provenance"]["sentences"]]
    right = next(proof["text"] for proof in proofs if proof["expression"]["class"] == "helipad")
    others = list(dict.fromkeys(proof["text"] for proof in proofs if proof["expression"]["class"] == "helicopter"))
    wrong = {others[0]: "the helipad", others[1]: "the helicopter with the long tail", others[2]: "the helicopter"}
    made, tally = built(record, tmp_path, Script({right: "the helipad situated in this image", **wrong}))
    assert tally["rewrite: kept"] >= 1
    assert tally["rewrite: refused: selects something else"] >= 2
    assert tally["rewrite: refused: not understood"] >= 1
    kept = [proof for proof in said(made) if "written_as" in proof]
    assert {(proof["written_as"], proof["text"]) for proof in kept} == {(right, "the helipad situated in this image")}
    prompts = " ".join(turn["prompt"] + turn["answer"] for dialogue in made["dialogues"] for turn in dialogue["turns"])
    assert "the helipad situated in this image" in prompts
    assert not any(text in prompts for text in ("long tail", "the helicopter is [SEG]"))


def test_a_careless_rewriter_never_makes_a_wrong_description(tmp_path: Path) -> None:
    source, total = Scenes("standard", "train", 128), Counter[str]()
    for index in range(4):
        scene = source.scene(index)
        made, tally = built(record_of(scene, tmp_path), tmp_path, Careless())
        total += tally
        vocabulary = Vocabulary({thing.name for thing in scene.instances})
        for dialogue in made["dialogues"]:
            for proof in dialogue["provenance"]["sentences"]:
                if "written_as" in proof:  # what is checked is what is said now
                    proof["expression"] = vocabulary.parse(proof["text"]).data()
        assert not mistakes(made | {"key": str(index)}, scene)
    assert total["rewrite: kept"] >= 3, total
    assert sum(count for name, count in total.items() if name.startswith("rewrite: refused")) >= 10, total


WORDS = ["[UNK]", "[PAD]", "[EOS]", "<image>", "the", "red", "ship", "plane", "left", "facts", "description", "in", "other", "words"]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]", eos_token="[EOS]", additional_special_tokens=["<image>"])


def tiny() -> LlamaConfig:
    return LlamaConfig(vocab_size=len(WORDS), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, pad_token_id=1, eos_token_id=2)


def test_a_language_model_of_transformers_rewords_and_is_verified(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    torch.manual_seed(0)
    LlamaForCausalLM(tiny()).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    rewriter = LanguageModelRewriter(str(tmp_path / "model"), max_new_tokens=6)
    assert isinstance(rewriter, Rewriter)
    first = rewriter.rewrite("the red ship", {"expression": {"class": "ship"}})
    assert first
    assert set(first.split()) <= set(WORDS)
    again = pickle.loads(pickle.dumps(rewriter))
    assert again.rewrite("the red ship", {"expression": {"class": "ship"}}) == first, "workers load their own and say the same"
    scene = Scenes("standard", "train", 64).scene(3)
    made, tally = built(record_of(scene, tmp_path), tmp_path, rewriter)
    assert sum(count for name, count in tally.items() if name.startswith("rewrite: ")) > 3
    assert not mistakes(made, scene)


def test_a_vision_language_model_of_transformers_sees_the_thing(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    torch.manual_seed(0)
    vision = CLIPVisionConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8)
    config = LlavaConfig(vision_config=vision, text_config=tiny(), image_token_id=3, vision_feature_layer=-1)
    LlavaForConditionalGeneration(config).save_pretrained(tmp_path / "model")
    template = "{% for part in messages[0]['content'] %}{{ '<image>' if part['type'] == 'image' else part['text'] }} {% endfor %}"
    LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}), tokenizer=tokenizer, patch_size=8,
        vision_feature_select_strategy="default", num_additional_image_tokens=1, chat_template=template, image_token="<image>",
    ).save_pretrained(tmp_path / "model")  # fmt: skip
    cv2.imwrite(str(tmp_path / "a.png"), np.full((40, 40, 3), 128, np.uint8))
    rewriter = VisionLanguageModelRewriter(str(tmp_path / "model"), max_new_tokens=4)
    answer = rewriter.rewrite("the red ship", {"image": str(tmp_path / "a.png"), "box": (5, 5, 20, 20)})
    assert set(answer.split()) <= set(WORDS)
    assert rewriter._crop({"image": str(tmp_path / "a.png"), "box": (0, 10, 20, 20)}).size == (30, 20)


def test_prompts_hold_the_description_and_answers_are_one_line() -> None:
    assert filled("say {text} by {facts}", "the ship", {"colour": "red", "selects": [1]}) == 'say the ship by {"colour": "red"}'
    assert first_line("\n the ship \nand more") == "the ship"
    with pytest.raises(ValueError, match="text"):
        LanguageModelRewriter("nowhere", "no place")
