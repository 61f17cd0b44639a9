from collections.abc import Iterable
from copy import deepcopy

import jsonargparse
import pytest
from transformers import PreTrainedTokenizerBase

from geopix.llms.template import Chat
from geopix.llms.tokenizer import Corpus, train_tokenizer
from geopix.types import Turn


class Harbour:
    """A corpus that names few numbers, so that the others must come from the trainer."""

    def texts(self) -> Iterable[str]:
        for index in range(200):
            yield f"Segment the ship at {{<{index % 7}><12>}}."
            yield f"Sure, the storage tank is [SEG]; there are {index % 5} of them."


class Silent:
    def texts(self) -> Iterable[str]:
        yield from ("", "  ")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return train_tokenizer(Harbour())


def ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_corpus_is_what_has_texts() -> None:
    assert isinstance(Harbour(), Corpus)
    assert not isinstance(object(), Corpus)


@pytest.mark.parametrize("text", ["Segment the ship.", "a  b\n\n\tc ", "höher 日本 🚢", "{<3><100><57><0>}", " [segment] x", "1234567 0.25", "\x00\x7f"])
def test_any_text_goes_there_and_back(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    assert tokenizer.decode(ids(tokenizer, text)) == text


def test_whole_numbers_signs_and_roles_are_single_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    for text in [*map(str, range(101)), "{", "}", "<", ">", "USER", " ASSISTANT", " ship", " Sure", "Segment"]:
        assert len(ids(tokenizer, text)) == 1, text
    inside, alone = ids(tokenizer, "{<57>}"), ids(tokenizer, "57")
    assert len(inside) == 5
    assert inside[2:3] == alone == ids(tokenizer, "there are 57")[-1:]


def test_the_same_corpus_gives_the_same_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    assert train_tokenizer(Harbour()).backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


def test_special_ids_and_size(tokenizer: PreTrainedTokenizerBase) -> None:
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert len(train_tokenizer(Harbour(), vocab_size=512)) <= 512


def test_chat_template(tokenizer: PreTrainedTokenizerBase) -> None:
    chat = Chat(deepcopy(tokenizer), seg_tokens=1)
    found, labels = chat.ids([Turn("the ship", "here"), Turn("and?", "no")], 0, ask=False)
    assert chat.tokenizer.decode(found) == "<s>USER: the ship ASSISTANT: here</s>USER: and? ASSISTANT: no</s>"
    assert chat.tokenizer.decode([label for label in labels if label >= 0]) == " here</s> no</s>"


def test_errors_name_the_corpus_and_the_size() -> None:
    with pytest.raises(ValueError, match="Silent"):
        train_tokenizer(Silent())
    with pytest.raises(ValueError, match="found 100, expected at least 512"):
        train_tokenizer(Harbour(), vocab_size=100)


def test_yaml_can_name_the_function() -> None:
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--tokenizer", type=PreTrainedTokenizerBase)
    value = {"class_path": "geopix.llms.tokenizer.train_tokenizer", "init_args": {"corpus": {"class_path": f"{__name__}.Harbour"}, "vocab_size": 600}}
    built = parser.instantiate_classes(parser.parse_object({"tokenizer": value})).tokenizer
    assert isinstance(built, PreTrainedTokenizerBase)
    assert len(built) <= 600
