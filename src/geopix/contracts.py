"""The five families of parts and the factories of those whose widths are still open.

Leaves (VisionEncoder, LanguageModel) know their widths. Glue (Connector, MaskDecoder, Memory) is handed to
:class:`geopix.model.GeoPixModel` as a class or a ``partial`` of one, and is built there with the widths it meets:
a class is its own factory. A part outside this package works the same way.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from lightning.pytorch import LightningModule
from torch import Tensor

from geopix.types import Drawing, Tokens, Turn

Recall = Callable[[Tensor, Tensor, Tensor, int], Tensor]
"""A memory with its prompts and class ids already bound: ``recall(features "b c h w", image_index " m", mask_logits "m h w", level) -> "m c h w"``."""


@dataclass(frozen=True)
class ImageRecall:
    """A :data:`Recall` through a memory that reads neither first masks nor prompts (:attr:`Memory.per_image`).

    A decoder that knows it draws no first mask for it and works on each image's refined map once; any other calls it like every recall.

    Args:
        of_images: ``of_images(features "b c h w", level) -> "b c h w"``.
    """

    of_images: Callable[[Tensor, int], Tensor]

    def __call__(
        self, features: Float[Tensor, "b c h w"], image_index: Int[Tensor, " m"], mask_logits: Float[Tensor, "m _ _"], level: int
    ) -> Float[Tensor, "m c h w"]:
        """The refined map of each mask's image."""
        return self.of_images(features, level).index_select(0, image_index)


EmbedWords = Callable[[Sequence[str]], Tensor]
"""What a language model's vocabulary holds for words: ``embed_words(texts) -> "p d"``."""


class Component(LightningModule, ABC):
    """A part of a model: a forward and nothing else. It has no steps, never logs, and takes device and dtype from its inputs or parameters."""


class VisionEncoder(Component):
    """Turns images in 0..1 into feature maps; it owns normalisation.

    Attributes:
        bands: how many image bands it reads.
        channels: width of each map, finest first; the last map is the one that most connectors read.
        strides: image pixels per cell of each map, in the same order.
    """

    bands: int
    channels: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def cell(self) -> int:
        """Pixels: of an image whose sides are multiples of this, all maps that are drawn from end where it ends; of others they reach beyond it."""
        return math.lcm(*self.strides)

    @abstractmethod
    def forward(self, images: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Maps of the given images, finest first."""


class Connector(Component):
    """Turns the encoder's maps into visual tokens for the language model. Built as ``(channels, out_dim, *, ...)``; most read the last map alone."""

    @abstractmethod
    def forward(self, features: list[Float[Tensor, "b _ _ _"]]) -> Float[Tensor, "b n d"]:
        """Visual tokens, in the order in which the language model reads them. Maps come finest first, all of them."""


class TooLongError(ValueError):
    """Dialogues that a language model cannot take for their length.

    Args:
        message: naming one of them, its length and what is allowed.
        rows: all of them, by position.
    """

    def __init__(self, message: str, rows: Sequence[int]) -> None:
        super().__init__(message)
        self.rows = frozenset(rows)


class LanguageModel(Component):
    """A causal language model with its tokenizer, its chat template and the tokens that one ``[SEG]`` becomes.

    Attributes:
        dim: width of its states.
        seg_ids: the k token ids that one ``[SEG]`` in an answer becomes, in order.
        image_id: the placeholder id that holds the place of one visual token.
    """

    dim: int
    seg_ids: tuple[int, ...]
    image_id: int

    @abstractmethod
    def tokenize(self, dialogues: Sequence[Sequence[Turn]], num_visual: int, *, ask: bool = False) -> Tokens:
        """Ids of the dialogues, left-padded, each with ``num_visual`` placeholders. Prompt ids never depend on the answers.

        Args:
            ask: leave out the last answer, so that it can be generated; earlier answers are history.

        Raises:
            ValueError: when a chat template rewrites earlier turns.
            TooLongError: naming every dialogue that is too long.
        """

    @abstractmethod
    def embed(self, ids: Int[Tensor, "q s"]) -> Float[Tensor, "q s d"]:
        """Input embeddings of ids."""

    @abstractmethod
    def embed_words(self, texts: Sequence[str]) -> Float[Tensor, "p d"]:
        """The mean input embedding of each text's tokens, as they stand within a sentence, in float32; there may be no texts.

        Raises:
            ValueError: for a text without words.
        """

    @abstractmethod
    def forward(self, embeds: Float[Tensor, "q s d"], attend: Bool[Tensor, "q s"]) -> Float[Tensor, "q s d"]:
        """States of the last layer, after its norm; positions are counted from ``attend``."""

    @abstractmethod
    def head(self, states: Float[Tensor, "a d"]) -> Float[Tensor, "a v"]:
        """Logits of the next token from states of the last layer."""

    @abstractmethod
    def generate(
        self, embeds: Float[Tensor, "q s d"], attend: Bool[Tensor, "q s"], max_new_tokens: int
    ) -> tuple[Int[Tensor, "q t"], Float[Tensor, "q _ d"]]:
        """Greedy answers: new ids, padded on the right after the end, and ``t + 1`` states of the last layer.

        State i predicts id i; state i + 1 is id i's own. One token more than asked may be run so that the last id has its own state.
        """

    @abstractmethod
    def decode(self, ids: Int[Tensor, "q t"]) -> list[str]:
        """Text of generated ids up to their end. A complete run of ``seg_ids`` reads ``[SEG]``; incomplete runs are not shown."""


class Memory(Component):
    """What a mask decoder may ask for a second look. Built as ``(channels, prompt_dim, *, ...)``, one width per level.

    Attributes:
        classes: its vocabulary of class names; may be empty.
        open_vocabulary: its weights hold nothing per class, so a checkpoint of another vocabulary fits.
        per_image: what it returns follows from image and level alone, not from the first mask, the prompt or the class; so no first mask is drawn for it.
    """

    classes: tuple[str, ...]
    open_vocabulary: bool = False
    per_image: bool = False

    @abstractmethod
    def classify(self, prompts: Float[Tensor, "m k d"]) -> Float[Tensor, "m p"]:
        """Class logits of what each prompt asks for; p may be 0."""

    @abstractmethod
    def forward(
        self,
        features: Float[Tensor, "b c h w"],
        image_index: Int[Tensor, " m"],
        mask_logits: Float[Tensor, "m _ _"],
        level: int,
        *,
        prompts: Float[Tensor, "m k d"],
        class_ids: Int[Tensor, " m"],
    ) -> Float[Tensor, "m c h w"]:
        """Features of each mask's image, refined by what is remembered about its class.

        Args:
            mask_logits: the decoder's first mask of each object, at any resolution.
            prompts: the states that ask for each mask; from them the class is inferred, softly, where it was not named.
            class_ids: the class where it was named, -1 where it was not.
        """

    def know_names(self, embed_words: EmbedWords) -> None:
        """Look up what the language model knows about the class names, for memories that read them. Called before each drawing. Nothing by default."""

    def observe(
        self,
        features: Mapping[int, Float[Tensor, "b _ _ _"]],
        image_index: Int[Tensor, " m"],
        masks: Bool[Tensor, "m h w"],
        class_ids: Int[Tensor, " m"],
    ) -> None:
        """See training truth, for memories that store what they have seen. Nothing by default.

        Called once per training step on every rank, after the masks were drawn, and must leave equal state on all ranks: what it exchanges has the same
        size on each, whatever its batch holds.

        Args:
            features: the maps that the decoder offered, by level; none where it never asked.
            class_ids: the true class of each mask, -1 where it is not known; ``m`` may be 0.
        """


class MaskDecoder(Component):
    """Draws one mask per prompt. Built as ``(channels, prompt_dim, *, ...)``.

    Attributes:
        memory_channels: widths of the maps it offers to a memory, one per level; empty when it takes no second look.
        num_tokens: how many segmentation tokens per mask it reads; None when it takes any number.
    """

    memory_channels: tuple[int, ...]
    num_tokens: int | None

    @abstractmethod
    def forward(
        self,
        features: list[Float[Tensor, "b _ _ _"]],
        prompts: Float[Tensor, "m k d"],
        image_index: Int[Tensor, " m"],
        recall: Recall | None = None,
    ) -> Drawing:
        """Masks of all prompts at once; ``m`` may be 0. Features come per image: what no prompt changes is computed once per image.

        The returned drawing's ``dialogue_index`` is ``image_index``; the model replaces it.
        """


@runtime_checkable
class ConnectorFactory(Protocol):
    """Anything that builds a connector from the encoder's widths and the language model's width."""

    def __call__(self, channels: Sequence[int], out_dim: int) -> Connector: ...


@runtime_checkable
class MemoryFactory(Protocol):
    """Anything that builds a memory from the widths of the decoder's levels and the language model's width."""

    def __call__(self, channels: Sequence[int], prompt_dim: int) -> Memory: ...


@runtime_checkable
class MaskDecoderFactory(Protocol):
    """Anything that builds a mask decoder from the encoder's widths and the language model's width."""

    def __call__(self, channels: Sequence[int], prompt_dim: int) -> MaskDecoder: ...
