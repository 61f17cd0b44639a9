"""A small tokenizer trained in seconds from the data's own text, for language models that start from random weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, runtime_checkable

from tokenizers import Regex, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from geopix.llms.template import DEFAULT_TEMPLATE

# A word with the space before it; digits alone, so that 57 is the same token in a count and in a box; every other sign alone.
_PIECES = r" ?\p{L}+|\p{N}{1,3}|\s+(?=\s\p{L})|\s|[^\s\p{L}\p{N}]"
_ALWAYS = "USER: ASSISTANT: " + " ".join(str(number) for number in range(101))
_WEIGHT = 2000


@runtime_checkable
class Corpus(Protocol):
    """Anything that can tell the text it will ask and answer. A class named in YAML must annotate ``texts`` exactly as here: the parser compares."""

    def texts(self) -> Iterable[str]:
        """Prompts and answers, a finite number of them, the same at every call."""
        ...


def train_tokenizer(corpus: Corpus, *, vocab_size: int = 2000) -> PreTrainedTokenizerBase:
    """Byte-level BPE (Sennrich et al. 2016, https://arxiv.org/abs/1508.07909) from a data source's own text.

    Any text goes there and back unchanged, since all 256 bytes are tokens. Words keep the space before them; signs such as ``{ < >`` are
    always alone; the whole numbers 0 to 100, in which boxes and counts are written, are one token each. The same corpus gives the same tokenizer.

    Args:
        corpus: where the text comes from.
        vocab_size: tokens in all, with the 3 special ones and the 256 bytes; fewer when the corpus holds too few different words.

    Returns:
        A tokenizer with ``<pad> <s> </s>`` as ids 0, 1, 2 and with a chat template.

    Raises:
        ValueError: when the corpus has no text, or when the vocabulary is too small for bytes and numbers.
    """
    if vocab_size < 512:
        raise ValueError(f"vocab_size: found {vocab_size}, expected at least 512 (256 bytes, 101 numbers, 3 special tokens and some words).")
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = Sequence([Split(Regex(_PIECES), behavior="isolated"), ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = ByteLevelDecoder()
    specials = ["<pad>", "<s>", "</s>"]
    trainer = BpeTrainer(vocab_size=vocab_size, special_tokens=specials, initial_alphabet=sorted(ByteLevel.alphabet()), show_progress=False)
    tokenizer.train_from_iterator(_lines(corpus), trainer=trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=specials[0],
        bos_token=specials[1],
        eos_token=specials[2],
        clean_up_tokenization_spaces=False,
        chat_template=DEFAULT_TEMPLATE,
    )


def _lines(corpus: Corpus) -> Iterator[str]:
    """The corpus, then what must become whole tokens however rare the corpus holds it."""
    found = False
    for text in corpus.texts():
        found = found or bool(text.strip())
        yield text
        yield f" {text}"  # as it stands in a dialogue, where something goes before
    if not found:
        raise ValueError(f"corpus: {type(corpus).__name__}.texts() gave no text to train a tokenizer from; expected prompts and answers. Check its data.")
    for _ in range(_WEIGHT):
        yield _ALWAYS
