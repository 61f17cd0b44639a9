"""Any causal language model of the transformers library, from weights or from a config alone, with LoRA where asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from peft import LoraConfig, inject_adapter_in_model
from peft.utils.other import TrainableTokensWrapper
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from geopix.contracts import LanguageModel, TooLongError
from geopix.llms.sources import Quantise, Setting, check_at_hand, random_model, read_model, read_tokenizer, refuse_work_after_head
from geopix.llms.template import Chat
from geopix.types import Tokens, Turn

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class LoRA:
    """Low-rank adapters (Hu et al. 2021, https://arxiv.org/abs/2106.09685) on named linear layers of the language model alone.

    The base is frozen. The rows of the segmentation tokens are trained as well, in the embedding and in the head. Defaults are those of
    LISA and PixelLM.

    Args:
        rank: of each update.
        alpha: the update is scaled by ``alpha / rank``.
        dropout: of the adapters' input, in training.
        targets: names of linear layers, in every block.
    """

    rank: int = 8
    alpha: int = 16
    dropout: float = 0.05
    targets: tuple[str, ...] = ("q_proj", "v_proj")


class HFLanguageModel(LanguageModel):
    """A causal language model of the transformers library (https://github.com/huggingface/transformers).

    Without LoRA all of it is trained. Models whose logits are scaled or capped after the head (Gemma 2, Cohere, Granite) are refused.

    Args:
        source: a folder or hub name with weights, which may be a multi-modal checkpoint such as ``llava-hf/llava-1.5-7b-hf``, whose language model
            is read; or a config with ``model_type`` for random weights, such as
            ``{model_type: llama, hidden_size: 128, intermediate_size: 384, num_hidden_layers: 4, num_attention_heads: 4}``;
            the size of the vocabulary is filled in.
        tokenizer: one that is ready, or a folder or hub name; None takes the one of ``source``. Special tokens are added to it.
        seg_tokens: how many tokens one ``[SEG]`` becomes: ``[SEG0]``, ``[SEG1]`` and so on. GeoPix has 6, 3 for each of 2 levels.
        lora: train adapters instead of all weights.
        system: system message of every dialogue; empty for the template's own, or none.
        template: Jinja chat template in place of the tokenizer's own. A tokenizer without one gets ``USER: prompt ASSISTANT: answer</s>``.
        max_length: most tokens of a dialogue, visual tokens included; a longer one is an error, never cut.
        dtype: of the weights as they are built. A frozen 7B base fits one GPU as bfloat16; LoRA's weights are float32 all the same.
        quantise: hold the weights of linear layers in 4 bits (``nf4``, ``fp4``: https://arxiv.org/abs/2305.14314) or 8 (``int8``:
            https://arxiv.org/abs/2208.07339). Embedding and head are not quantised. Only LoRA can train then; without it all is frozen.
            Needs a GPU and ``pip install "geopix[quantised]"``.
        gradient_checkpointing: compute activations twice to hold fewer of them in training.

    Raises:
        ValueError: when weights or tokenizer are missing or incomplete (all that is missing in one error), when the tokenizer, the template
            or the config cannot be used, and when ``quantise`` cannot be done here.
    """

    def __init__(
        self,
        source: dict[str, Setting] | str | Path,
        *,
        tokenizer: PreTrainedTokenizerBase | str | None = None,
        seg_tokens: int = 6,
        lora: LoRA | None = None,
        system: str = "",
        template: str | None = None,
        max_length: int = 2048,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        quantise: Quantise | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if quantise is not None and isinstance(source, dict):
            raise ValueError(f"quantise: {quantise!r} is for weights that are read; found a config as source, whose weights are random. Leave quantise out.")
        check_at_hand(source, tokenizer)
        self.chat = Chat(read_tokenizer(tokenizer, source), seg_tokens=seg_tokens, system=system, template=template)
        self.seg_ids, self.image_id, self.max_length = self.chat.seg_ids, self.chat.image_id, max_length
        kind = _DTYPES[dtype]
        self.lm: PreTrainedModel = random_model(source, self.chat, kind) if isinstance(source, dict) else read_model(str(source), kind, quantise)
        refuse_work_after_head(self.lm.config)
        if self.lm.get_input_embeddings().weight.shape[0] < self.chat.num_tokens:
            self.lm.resize_token_embeddings(self.chat.num_tokens, mean_resizing=False)
        self.dim: int = self.lm.get_input_embeddings().weight.shape[1]
        if gradient_checkpointing:
            self.lm.gradient_checkpointing_enable({"use_reentrant": False})
        if lora is not None:
            _adapt(self.lm, lora, self.seg_ids)
        elif quantise is not None:
            self.lm.requires_grad_(False)
        if quantise is not None:
            self.register_state_dict_post_hook(_leave_out_scales)
        if any(parameter.requires_grad for parameter in self.parameters()):
            self.train()  # weights that are read come in evaluation mode, in which activations are not checkpointed

    def tokenize(self, dialogues: Sequence[Sequence[Turn]], num_visual: int, *, ask: bool = False) -> Tokens:
        """Ids of the dialogues, left-padded, on the CPU. Labels cover answers and the token that ends each.

        Raises:
            ValueError: for a dialogue without turns, and for an empty answer unless it is asked for.
            TooLongError: for dialogues longer than ``max_length``.
        """
        rows: list[tuple[list[int], list[int]]] = []
        for index, turns in enumerate(dialogues):
            try:
                row = self.chat.ids(turns, num_visual, ask=ask)
            except ValueError as error:
                raise ValueError(f"dialogue {index} of the batch: {error}") from error
            if not turns:
                raise ValueError(f"dialogue {index} of the batch: found 0 turns, expected at least 1.")
            rows.append(row)
        if long := [index for index, (ids, _) in enumerate(rows) if len(ids) > self.max_length]:
            count, length = len(dialogues[long[0]]), len(rows[long[0]][0])
            raise TooLongError(
                f"dialogue {long[0]} of the batch: found {count} turns and {length} tokens, {num_visual} of them visual; expected at most max_length = "
                f"{self.max_length} tokens. Shorten it, use a connector with fewer visual tokens, or raise max_length.",
                long,
            )
        longest = max((len(ids) for ids, _ in rows), default=0)
        ids = torch.full((len(rows), longest), self.chat.pad_id)
        labels = torch.full_like(ids, -100)
        attend = torch.zeros_like(ids, dtype=torch.bool)
        for index, row in enumerate(rows):
            start = longest - len(row[0])
            ids[index, start:], labels[index, start:], attend[index, start:] = torch.tensor(row[0]), torch.tensor(row[1]), True
        return Tokens(ids, labels, attend)

    def embed(self, ids: Int[Tensor, "q s"]) -> Float[Tensor, "q s d"]:
        """Input embeddings of ids. What a model does to them inside (Gemma scales them) it does to visual tokens as well."""
        return self.lm.get_input_embeddings()(ids)

    def embed_words(self, texts: Sequence[str]) -> Float[Tensor, "p d"]:
        """The mean input embedding of each text's tokens, with a space before them, in float32.

        Raises:
            ValueError: for a text without words.
        """
        pieces = [self.chat.encode(f" {text.strip()}") if text.strip() else () for text in texts]
        if not all(pieces):
            raise ValueError(f"embed_words: found {list(texts)}, expected words in each text; name what has no name or leave it out.")
        device = self.lm.get_input_embeddings().weight.device
        counts = torch.tensor([len(piece) for piece in pieces], dtype=torch.long, device=device)
        owner = torch.arange(len(pieces), device=device).repeat_interleave(counts)
        rows = self.embed(torch.tensor([[index for piece in pieces for index in piece]], dtype=torch.long, device=device))[0].float()
        return rows.new_zeros(len(pieces), self.dim).index_add(0, owner, rows) / counts[:, None]

    def forward(self, embeds: Float[Tensor, "q s d"], attend: Bool[Tensor, "q s"]) -> Float[Tensor, "q s d"]:
        """States of the last layer, after its norm; positions are counted from ``attend``."""
        return self._states(embeds, attend, None)

    def head(self, states: Float[Tensor, "a d"]) -> Float[Tensor, "a v"]:
        """Logits of the next token."""
        head = self.lm.get_output_embeddings()
        logits = head(states)
        if isinstance(head, TrainableTokensWrapper) and head.original_module.bias is not None:
            return logits + head.original_module.bias  # peft leaves out the bias of a head whose rows it trains; Phi has one
        return logits

    @torch.no_grad()
    def generate(
        self, embeds: Float[Tensor, "q s d"], attend: Bool[Tensor, "q s"], max_new_tokens: int
    ) -> tuple[Int[Tensor, "q t"], Float[Tensor, "q _ d"]]:
        """Greedy answers, all rows at once with one cache of keys and values; stops when the last row has ended.

        Dropout and checkpointing are off meanwhile. Each new token is run once, the last one too, so that it has its own state.
        """
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens: found {max_new_tokens}, expected at least 1.")
        was_training = self.training
        self.eval()
        cache, stop = DynamicCache(config=self.lm.config), torch.tensor(sorted(self.chat.stop_ids), device=embeds.device)
        ended = torch.zeros(len(embeds), dtype=torch.bool, device=embeds.device)
        states, ids = [self._states(embeds, attend, cache)[:, -1]], []
        for _ in range(max_new_tokens):
            ids.append(self.head(states[-1]).argmax(-1).masked_fill(ended, self.chat.pad_id))
            attend = torch.cat([attend, attend.new_ones(len(attend), 1)], 1)
            states.append(self._states(self.embed(ids[-1][:, None]), attend, cache)[:, -1])
            ended = ended | torch.isin(ids[-1], stop)
            if ended.all():
                break
        self.train(was_training)
        return torch.stack(ids, 1), torch.stack(states, 1)

    def decode(self, ids: Int[Tensor, "q t"]) -> list[str]:
        """Text of generated ids up to their end, without white space at both ends."""
        return [self.chat.decode(row) for row in ids.tolist()]

    def get_extra_state(self) -> dict[str, str | int]:
        """What the tokenizer is, for checkpoints: its size and a digest of its vocabulary and of the template's text."""
        vocabulary = sorted(self.chat.tokenizer.get_vocab().items())
        text = json.dumps([vocabulary, self.chat.template, self.chat.system, self.seg_ids])
        return {"tokens": len(vocabulary), "seg_tokens": len(self.seg_ids), "digest": hashlib.sha256(text.encode()).hexdigest()}

    def set_extra_state(self, state: Mapping[str, str | int]) -> None:
        """Refuses a checkpoint of another tokenizer: its ids would mean other words.

        Raises:
            ValueError: naming both.
        """
        mine = self.get_extra_state()
        if dict(state) != mine:
            raise ValueError(
                f"checkpoint: it was trained with another tokenizer, chat template or number of segmentation tokens: found {dict(state)}, expected {mine} "
                "as this language model was built. Build it as it was in training: same source, tokenizer or corpus, seg_tokens, system and template."
            )

    def _states(self, embeds: Tensor, attend: Tensor, cache: DynamicCache | None) -> Tensor:
        positions = (attend.long().cumsum(1) - 1).clamp(min=0)[:, -embeds.shape[1] :]
        return self.lm.base_model(
            inputs_embeds=embeds.to(self.lm.get_input_embeddings().weight.dtype),
            attention_mask=attend,
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state


def _leave_out_scales(module: nn.Module, state: MutableMapping[str, object], prefix: str, metadata: object) -> None:
    """Drops the scales of 4-bit weights from a state dict: they come with the weights from the source, and no state dict can be loaded with them."""
    for key in [key for key in state if key.startswith(prefix) and ".weight." in key.removeprefix(prefix)]:
        del state[key]


def _adapt(lm: PreTrainedModel, lora: LoRA, seg_ids: tuple[int, ...]) -> None:
    """Freezes the model and adds adapters, and trainable rows for new tokens on both sides; tied sides share theirs."""
    embedding, head = lm.get_input_embeddings(), lm.get_output_embeddings()
    sides: list[nn.Module] = [embedding] if head is None or head.weight is embedding.weight else [embedding, head]
    rows = {name.rpartition(".")[2]: list(seg_ids) for name, module in lm.named_modules() if any(module is side for side in sides)}
    linear = [f".{name}" for name, module in lm.base_model.named_modules() if isinstance(module, nn.Linear)]
    wrong = [target for target in lora.targets if not any(name.endswith(f".{target}") for name in linear)]
    if wrong or not lora.targets:
        names = sorted({name.rpartition(".")[2] for name in linear})
        raise ValueError(f"lora.targets: {wrong or 'none'} cannot be adapted in {type(lm).__name__}: expected some of {names}.")
    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=list(lora.targets), trainable_token_indices=rows
    )
    inject_adapter_in_model(config, lm)
    for parameter in lm.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()  # steps of a small learning rate vanish in bfloat16
