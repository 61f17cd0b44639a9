"""The model: encoder -> connector -> language model -> ``[SEG]`` states -> mask decoder (+ memory) -> masks.

Read top to bottom: ``encode`` once per image, then ``forward`` over finished dialogues or ``generate`` over questions.
Both end in ``gather_seg`` and ``_draw``, so a mask is drawn one way only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from geopix.contracts import ConnectorFactory, ImageRecall, LanguageModel, MaskDecoderFactory, MemoryFactory, TooLongError, VisionEncoder
from geopix.types import SEG, Batch, Drawing, Output, Prediction, Tokens, Turn


@dataclass(frozen=True)
class Encoded:
    """Images as the model has seen them: computed once, asked about many times.

    Args:
        features: maps for the mask decoder, finest first.
        visual: visual tokens for the language model.
    """

    features: list[Float[Tensor, "b _ _ _"]]
    visual: Float[Tensor, "b n d"]


def gather_seg(
    ids: Int[Tensor, "q t"], hidden: Float[Tensor, "q t+1 d"], seg_ids: Sequence[int], own_state: bool
) -> tuple[Float[Tensor, "m k d"], Int[Tensor, " m"]]:
    """States of every complete run of segmentation tokens, with the row that each stands in.

    State i predicts id i and state i + 1 is id i's own, so one function serves a finished text and a text being generated.
    Incomplete runs are skipped.

    Args:
        seg_ids: the k ids that one ``[SEG]`` becomes, in order.
        own_state: take each token's own state instead of the one that predicts it (LISA and GeoPix take the latter).
    """
    k = len(seg_ids)
    if ids.shape[1] < k:
        return hidden.new_zeros(0, k, hidden.shape[2]), ids.new_zeros(0)
    runs = (ids.unfold(1, k, 1) == ids.new_tensor(seg_ids)).all(-1)
    row, start = runs.nonzero(as_tuple=True)
    position = start[:, None] + torch.arange(k, device=ids.device) + int(own_state)
    return hidden[row[:, None], position], row


@final
class GeoPixModel(nn.Module):
    """A pixel-level vision-language model (GeoPix, arXiv 2501.06828), composed of parts. The only place where widths meet.

    Args:
        encoder: reads the image; its maps go through the connector to the language model.
        connector: class or partial of one; built with the encoder's widths and the language model's width.
        llm: writes the answer; the states of its segmentation tokens are the prompts of the mask decoder.
        decoder: class or partial of one; built with the drawing encoder's widths and the language model's width. None for a model of words and boxes
            alone (GeoChat): it reads dialogues without masks, and what it answers is never drawn.
        memory: class or partial of one, for the decoder's second look; None for none.
        pixel_encoder: draws instead of ``encoder`` where given: read with one, draw with another (LISA, GeoPixel).
        own_state: prompt the decoder with each segmentation token's own state, instead of the state that predicts it.

    Raises:
        ValueError: when two encoders read different bands, the decoder reads another number of tokens per mask than one ``[SEG]`` becomes, or there is
            a memory or a pixel encoder and no decoder to use it.
    """

    def __init__(
        self,
        encoder: VisionEncoder,
        connector: ConnectorFactory,
        llm: LanguageModel,
        decoder: MaskDecoderFactory | None,
        memory: MemoryFactory | None = None,
        pixel_encoder: VisionEncoder | None = None,
        own_state: bool = False,
    ) -> None:
        super().__init__()
        drawing = pixel_encoder or encoder
        if drawing.bands != encoder.bands:
            raise ValueError(f"encoder reads {encoder.bands} bands but pixel_encoder {drawing.bands}; both see the same image, so give both the same bands.")
        if decoder is None and (memory is not None or pixel_encoder is not None):
            raise ValueError("a memory and a pixel_encoder serve a mask decoder, and decoder is null; set both to null as well, or choose a decoder.")
        self.encoder = encoder
        self.connector = connector(encoder.channels, llm.dim)
        self.llm = llm
        self.decoder = decoder(drawing.channels, llm.dim) if decoder is not None else None
        self.memory = memory(self.decoder.memory_channels, llm.dim) if memory is not None and self.decoder is not None else None
        self.pixel_encoder = pixel_encoder
        self.own_state = own_state
        if self.decoder is not None and self.decoder.num_tokens not in (None, len(llm.seg_ids)):
            raise ValueError(
                f"{type(self.decoder).__name__} reads {self.decoder.num_tokens} segmentation tokens per mask but one {SEG} becomes {len(llm.seg_ids)}; "
                f"set the language model's seg_tokens to {self.decoder.num_tokens}, or change the decoder's levels or tokens_per_level."
            )

    @property
    def classes(self) -> tuple[str, ...]:
        """The memory's vocabulary; empty without a memory."""
        return self.memory.classes if self.memory is not None else ()

    @property
    def fixed_classes(self) -> tuple[str, ...] | None:
        """The vocabulary that weights must have been trained with; None where the memory's fit any."""
        return None if self.memory is not None and self.memory.open_vocabulary else self.classes

    def encode(self, images: Float[Tensor, "b c h w"]) -> Encoded:
        """See images once.

        Raises:
            ValueError: when they have another number of bands than the encoder reads, or sides that the strides of the maps to draw from do not divide.
        """
        if images.shape[1] != self.encoder.bands:
            raise ValueError(
                f"the data gives {images.shape[1]} bands but the encoder reads {self.encoder.bands}; "
                f"name the bands in the data (data.*.bands) or set the encoder's bands to {images.shape[1]}."
            )
        drawing, size = self.pixel_encoder or self.encoder, images.shape[-2:]
        if self.decoder is not None and any(side % drawing.cell for side in size):
            fitting = max(1, round(size[1] / drawing.cell)) * drawing.cell
            raise ValueError(
                f"images of {size[0]} x {size[1]} px do not divide into the cells of {type(drawing).__name__}, whose strides are {drawing.strides}: its maps "
                f"reach beyond the image, each by another length, and masks would shift. Set the data's size to {fitting}."
            )
        features = self.encoder(images)
        visual = self.connector(features)
        return Encoded(self.pixel_encoder(images) if self.pixel_encoder is not None else features, visual)

    def forward(self, batch: Batch, named: Bool[Tensor, " m"] | None = None) -> Output:
        """Read finished dialogues and draw every ``[SEG]`` in their answers.

        Args:
            named: the masks whose class name the memory is told; none of them by default.

        Raises:
            ValueError: when the answers hold another number of ``[SEG]`` than the batch has masks, or there are masks and no decoder.
        """
        if self.decoder is None and len(batch.masks):
            raise ValueError(
                f"the batch of {batch.keys[:3]} has {len(batch.masks)} masks and this model no mask decoder (decoder: null); leave the family segment out of "
                "the task mix and give it weight 0 in every stage, or choose a decoder."
            )
        seen = self.encode(batch.images)
        try:
            tokens = self._tokenize(batch.dialogues, seen, ask=False)
        except ValueError as error:
            raise ValueError(f"{error} The batch holds the images {', '.join(batch.keys)}.") from error
        embeds = self._embed(tokens, seen, batch.image_index)
        # Of no image may anything be asked, and no language model takes 0 rows.
        hidden = self.llm(embeds, tokens.attend) if len(embeds) else embeds.new_zeros(0, 1, embeds.shape[2])
        prompts, dialogue_index = gather_seg(tokens.ids[:, 1:], hidden, self.llm.seg_ids, self.own_state)
        if not torch.equal(dialogue_index, batch.dialogue_index):
            raise ValueError(
                f"the answers of the batch hold {len(dialogue_index)} {SEG} but it has {len(batch.dialogue_index)} masks, or they belong to other dialogues; "
                f"keys {batch.keys}. One {SEG} per mask, in order."
            )
        class_ids = self._class_ids(batch.classes)
        told = torch.full_like(class_ids, -1) if named is None else torch.where(named, class_ids, -1)
        offered: dict[int, Tensor] = {}
        drawing = self._draw(seen, prompts, dialogue_index, batch.image_index, told, offered)
        if self.memory is not None and self.memory.training:  # a curriculum rests a part by its own mode
            self.memory.observe(offered, batch.image_index[dialogue_index], batch.masks, class_ids)
        answered = tokens.labels[:, 1:] != -100
        return Output(self.llm.head(hidden[:, :-1][answered]), tokens.labels[:, 1:][answered], drawing, class_ids)

    @torch.no_grad()
    def generate(
        self,
        seen: Encoded,
        prompts: Sequence[Sequence[str]],
        image_index: Int[Tensor, " q"],
        *,
        max_new_tokens: int = 128,
        classes: Sequence[Sequence[str | None]] | None = None,
    ) -> Prediction:
        """Answer questions in words and masks. Later turns see the model's own earlier answers; where these have grown too long, the rest is left unanswered.

        Args:
            prompts: the questions of each dialogue, oldest first.
            image_index: which of the seen images each dialogue is about.
            max_new_tokens: longest answer of a turn, in tokens. Without a mask decoder ``[SEG]`` means nothing and is taken out.
            classes: class names of each dialogue's masks in order, where the asker knows them; unknown by default.
        """
        answers: list[list[str]] = [[] for _ in prompts]
        states, owners = [seen.visual.new_zeros(0, len(self.llm.seg_ids), self.llm.dim)], [image_index.new_zeros(0)]
        for turn in range(max((len(questions) for questions in prompts), default=0)):
            asking = [row for row, questions in enumerate(prompts) if turn < len(questions) and turn == len(answers[row])]
            asking, tokens = self._ask(seen, prompts, answers, asking)
            if not asking:
                break
            rows = image_index.new_tensor(asking)
            ids, hidden = self.llm.generate(self._embed(tokens, seen, image_index[rows]), tokens.attend, max_new_tokens)
            for row, answer in zip(asking, self.llm.decode(ids), strict=True):
                answers[row].append(answer if self.decoder is not None else answer.replace(SEG, "").strip())
            state, row_index = gather_seg(ids, hidden, self.llm.seg_ids, self.own_state)
            states.append(state)
            owners.append(rows[row_index])
        for row, questions in enumerate(prompts):
            answers[row] += [""] * (len(questions) - len(answers[row]))
        dialogue_index, order = torch.cat(owners).sort(stable=True)
        told = self._class_ids(_names_in_order(dialogue_index.tolist(), classes))
        drawing = self._draw(seen, torch.cat(states)[order], dialogue_index, image_index, told)
        return Prediction(tuple(map(tuple, answers)), drawing)

    def _ask(self, seen: Encoded, prompts: Sequence[Sequence[str]], answers: Sequence[Sequence[str]], rows: Sequence[int]) -> tuple[list[int], Tokens]:
        """The next questions of some dialogues: those of the rows that the language model can take, and their tokens."""
        dialogues = [(*map(Turn, prompts[row], answers[row]), Turn(prompts[row][len(answers[row])])) for row in rows]
        try:
            return list(rows), self._tokenize(dialogues, seen, ask=True)
        except TooLongError as error:
            if not answers[rows[min(error.rows)]]:  # nothing of it is the model's own
                raise
            return self._ask(seen, prompts, answers, [row for place, row in enumerate(rows) if place not in error.rows])

    def _draw(
        self,
        seen: Encoded,
        prompts: Float[Tensor, "m k d"],
        dialogue_index: Int[Tensor, " m"],
        image_of: Int[Tensor, " q"],
        class_ids: Int[Tensor, " m"],
        offered: dict[int, Tensor] | None = None,
    ) -> Drawing:
        """Masks of all prompts: the one way from states to masks, for training and answering.

        Args:
            offered: takes the maps that the decoder shows the memory, by level.
        """
        if self.decoder is None:
            return Drawing(prompts.new_zeros(0, 1, 1), dialogue_index[:0])
        image_index = image_of[dialogue_index]
        own = next(self.decoder.parameters(), prompts)
        prompts = prompts.to(own.dtype)  # of a language model in bfloat16, where nothing casts by itself
        if self.memory is None:
            drawing: Drawing = self.decoder(seen.features, prompts, image_index)
            return replace(drawing, dialogue_index=dialogue_index)
        memory = self.memory
        memory.know_names(self.llm.embed_words)

        def recall(features: Tensor, image_index: Tensor, mask_logits: Tensor, level: int) -> Tensor:
            if offered is not None:
                offered[level] = features.detach()
            refined: Tensor = memory(features, image_index, mask_logits, level, prompts=prompts, class_ids=class_ids)
            return refined

        def of_images(features: Tensor, level: int) -> Tensor:
            """One mask per image, of which nothing is known."""
            if offered is not None:
                offered[level] = features.detach()
            count = len(features)
            every, nothing = torch.arange(count, device=features.device), prompts.new_zeros(count, *prompts.shape[1:])
            unknown = class_ids.new_full((count,), -1)
            refined: Tensor = memory(features, every, features.new_zeros(count, 1, 1), level, prompts=nothing, class_ids=unknown)
            return refined

        drawing = self.decoder(seen.features, prompts, image_index, ImageRecall(of_images) if memory.per_image else recall)
        return replace(drawing, dialogue_index=dialogue_index, class_logits=memory.classify(prompts))

    def _tokenize(self, dialogues: Sequence[Sequence[Turn]], seen: Encoded, *, ask: bool) -> Tokens:
        tokens = self.llm.tokenize(dialogues, seen.visual.shape[1], ask=ask)
        device = seen.visual.device
        return Tokens(tokens.ids.to(device), tokens.labels.to(device), tokens.attend.to(device))

    def _embed(self, tokens: Tokens, seen: Encoded, image_index: Int[Tensor, " q"]) -> Float[Tensor, "q s d"]:
        """Input embeddings with the visual tokens put where the placeholders stand."""
        place = tokens.ids == self.llm.image_id
        visual = seen.visual[image_index]
        if not (place.sum(1) == visual.shape[1]).all():
            raise ValueError(f"an image gives {visual.shape[1]} visual tokens but the dialogues hold {place.sum(1).tolist()} places for them.")
        embeds = self.llm.embed(tokens.ids)
        return embeds.masked_scatter(place[..., None], visual.to(embeds.dtype))

    def _class_ids(self, names: Sequence[str | None]) -> Int[Tensor, " m"]:
        """Rows of the memory's vocabulary; -1 for a name that is unknown, which is never an error."""
        row = {name: index for index, name in enumerate(self.classes)}
        device = next(self.parameters()).device
        return torch.tensor([-1 if name is None else row.get(name, -1) for name in names], dtype=torch.long, device=device)


def _names_in_order(dialogue_index: Sequence[int], classes: Sequence[Sequence[str | None]] | None) -> list[str | None]:
    """The class name of each drawn mask: the j-th mask of a dialogue has its j-th name, or none."""
    if classes is None:
        return [None] * len(dialogue_index)
    left = [list(names) for names in classes]
    return [left[row].pop(0) if left[row] else None for row in dialogue_index]
