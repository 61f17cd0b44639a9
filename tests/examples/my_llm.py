"""A language model of one's own: a function that chooses for others what they need not know."""

from geopix.llms.hf import HFLanguageModel
from geopix.llms.tokenizer import Corpus, train_tokenizer


def small_llama(corpus: Corpus, *, dim: int = 128, layers: int = 4, seg_tokens: int = 6) -> HFLanguageModel:
    """A Llama with random weights whose tokenizer is trained from the data's own text.

    Args:
        corpus: where the text comes from.
        dim: width, a multiple of 32: each head has 32 channels.
        layers: how many.
        seg_tokens: how many tokens one ``[SEG]`` becomes.
    """
    heads = dim // 32
    source = {"model_type": "llama", "hidden_size": dim, "intermediate_size": 3 * dim, "num_hidden_layers": layers, "initializer_range": 0.06}
    return HFLanguageModel(source | {"num_attention_heads": heads, "num_key_value_heads": heads}, tokenizer=train_tokenizer(corpus), seg_tokens=seg_tokens)
