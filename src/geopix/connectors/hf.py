"""BLIP-2's Q-Former as a connector."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel

from geopix.contracts import Connector


class QFormerConnector(Connector):
    """Learned queries in a BERT-like transformer; every second layer also attends to the image's cells. The transformer is transformers' own.

    It starts from random weights: BLIP-2 pretrains it in a stage of its own before a language model ever sees it.

    Source: Li et al. 2023, "BLIP-2", section 3, https://arxiv.org/abs/2301.12597.

    Args:
        channels: widths of the encoder's maps, finest first; the last map is read.
        out_dim: width of the language model.
        tokens: queries, and so visual tokens per image.
        dim: width of the transformer.
        depth: its layers.
        heads: its attention heads.
        ffn: hidden width of its MLPs.
        every: one layer in so many attends to the image.
        dropout: in training, of states and attention.

    Raises:
        ValueError: when ``tokens`` is not positive, or ``dim`` is no multiple of ``heads``.
    """

    def __init__(
        self,
        channels: Sequence[int],
        out_dim: int,
        *,
        tokens: int = 32,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        ffn: int = 3072,
        every: int = 2,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if tokens < 1 or dim % heads:
            raise ValueError(f"a QFormerConnector needs at least one token and a width that its heads divide; found tokens={tokens}, dim={dim}, heads={heads}.")
        config = Blip2QFormerConfig(
            hidden_size=dim,
            num_hidden_layers=depth,
            num_attention_heads=heads,
            intermediate_size=ffn,
            cross_attention_frequency=every,
            encoder_hidden_size=channels[-1],
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
        )
        self.queries = nn.Parameter(torch.randn(1, tokens, dim) * config.initializer_range)
        self.qformer = Blip2QFormerModel(config)
        self.projection = nn.Linear(dim, out_dim)

    def forward(self, features: list[Float[Tensor, "b _ _ _"]]) -> Float[Tensor, "b n d"]:
        """Tokens of shape ``b tokens out_dim``."""
        cells = features[-1].flatten(2).transpose(1, 2)
        queries = self.queries.expand(len(cells), -1, -1)
        return self.projection(self.qformer(query_embeds=queries, encoder_hidden_states=cells).last_hidden_state)
