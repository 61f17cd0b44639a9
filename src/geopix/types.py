"""What flows between the parts of geopix: small frozen dataclasses, every tensor with its shape.

Legend of shape letters, used in every annotation of the package:

    b images   q dialogues   m masks of the whole batch, packed   k segmentation tokens per mask
    n visual tokens per image   s sequence   t new tokens   a answer tokens packed over the batch
    p classes of a memory   d language width   v vocabulary   c h w channels, rows, columns
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TypedDict

from jaxtyping import Bool, Float, Int
from torch import Tensor

SEG = "[SEG]"
"""Stands in an answer once per mask, in the order of the masks."""


class RLE(TypedDict):
    """A mask as COCO run-length encoding: column-major runs, compressed to ASCII (pycocotools)."""

    size: list[int]
    counts: str


class Georeference(TypedDict):
    """Where an image lies on the earth: its CRS as WKT and the six numbers of its affine transform."""

    crs: str
    transform: tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class Turn:
    """One question and its answer; the answer is empty when it is to be generated."""

    prompt: str
    answer: str = ""

    def __post_init__(self) -> None:
        if SEG in self.prompt:
            raise ValueError(f"a prompt must not contain {SEG}, which only an answer writes; found {self.prompt!r}. Say what to segment in words.")


@dataclass(frozen=True)
class Dialogue:
    """A conversation about one image, with the masks that its answers refer to.

    Args:
        turns: questions and answers, oldest first.
        masks: one mask per ``[SEG]`` of all the answers, in order, at the size of the sample's image; None when left out.
        classes: the class name of each mask, None where it is not known; may be empty, which means all unknown.
        task: ``family/kind``, such as ``segment/single`` or ``vqa/count``. The family (segment, refer, caption, vqa)
            is what a task mix draws by; the kind is what scores are grouped by.
        references: all true answers to the last turn, where a data set gives several, such as five captions; scores alone read them.

    Raises:
        ValueError: unless the answers hold as many ``[SEG]`` as there are masks, and as many classes as masks (or none).
    """

    turns: tuple[Turn, ...]
    masks: Bool[Tensor, "m h w"] | None = None
    classes: tuple[str | None, ...] = ()
    task: str = "segment/single"
    references: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.turns:
            raise ValueError("a dialogue needs at least one turn; found none.")
        if self.masks is None:
            return
        written = sum(turn.answer.count(SEG) for turn in self.turns)
        if written != len(self.masks):
            raise ValueError(
                f"the answers hold {written} {SEG} but there are {len(self.masks)} masks; one {SEG} per mask, in order. "
                f"Answers: {[turn.answer for turn in self.turns]}"
            )
        if self.classes and len(self.classes) != len(self.masks):
            raise ValueError(f"{len(self.classes)} class names for {len(self.masks)} masks; give one per mask (None if unknown) or none at all.")


@dataclass(frozen=True)
class Frame:
    """How an image of its own size was letterboxed into the model's canvas.

    A point ``(y, x)`` of the image, in pixels from its upper left corner, lies at ``(y * scale + top, x * scale + left)`` of the canvas.

    Args:
        height, width: the image's own size in pixels.
        scale: canvas pixels per image pixel.
        top, left: offset of the image in the canvas, in canvas pixels.
        canvas: rows and columns of the canvas.
    """

    height: int
    width: int
    scale: float
    top: int
    left: int
    canvas: tuple[int, int]


@dataclass(frozen=True)
class Sample:
    """One image with the dialogues about it. Masks have the size of ``image`` (the canvas); ``truth`` the image's own.

    Args:
        image: reflectance or intensity in 0..1, any number of bands.
        key: unique name within its data set.
        truth: per dialogue, its masks at the image's own size; given for evaluation only.
        unions: like ``truth``, but each mask is the union of everything in the image that has the target's class; the answer of
            somebody who knows the class and nothing else. Given for evaluation only, where a data set knows every instance.
        georeference: for images that have one.
    """

    image: Float[Tensor, "c h w"]
    dialogues: tuple[Dialogue, ...]
    key: str
    frame: Frame
    truth: tuple[tuple[RLE, ...], ...] | None = None
    unions: tuple[tuple[RLE, ...], ...] | None = None
    georeference: Georeference | None = None


@dataclass(frozen=True)
class Batch:
    """Samples packed for the model: all masks of the batch are one tensor, with an index that says whose each is.

    Args:
        dialogues: the turns alone; masks and classes were taken out, so the language model never holds them.
        tasks: ``family/kind`` of each dialogue, for the grouping of scores.
        image_index: the image of each dialogue.
        masks: truth at the training size; ``dialogue_index`` is ascending.
        dialogue_index: the dialogue of each mask.
        classes: the class name of each mask, None where unknown.
        keys, frames, georeferences: one per image.
        truth: each mask at its image's own size, in evaluation only; stays on the CPU.
        unions: the same for the union of each target's class, where the data set knows every instance.
        references: of each dialogue all true answers to its last turn, where the data set gives several; read by scores alone.
    """

    images: Float[Tensor, "b c h w"]
    dialogues: tuple[tuple[Turn, ...], ...]
    tasks: tuple[str, ...]
    image_index: Int[Tensor, " q"]
    masks: Bool[Tensor, "m h w"]
    dialogue_index: Int[Tensor, " m"]
    classes: tuple[str | None, ...]
    keys: tuple[str, ...]
    frames: tuple[Frame, ...]
    truth: tuple[RLE, ...] | None = None
    unions: tuple[RLE, ...] | None = None
    georeferences: tuple[Georeference | None, ...] = field(default=())
    references: tuple[tuple[str, ...], ...] = ()

    def to(self, device: object, non_blocking: bool = False) -> Batch:
        """The same batch with its tensors on ``device``; Lightning calls this."""
        moved = {name: getattr(self, name).to(device, non_blocking=non_blocking) for name in self._tensors}
        return replace(self, **moved)

    def pin_memory(self) -> Batch:
        """The same batch with its tensors in page-locked memory, for faster copies to a device; the data loader calls this."""
        return replace(self, **{name: getattr(self, name).pin_memory() for name in self._tensors})

    @property
    def _tensors(self) -> tuple[str, ...]:
        return ("images", "image_index", "masks", "dialogue_index")


@dataclass(frozen=True)
class Tokens:
    """Dialogues as token ids, left-padded; the image's place already holds its placeholder ids.

    Args:
        labels: the id where the loss is taken, -100 elsewhere; aligned with ``ids`` (nothing is shifted here).
        attend: False on padding.
    """

    ids: Int[Tensor, "q s"]
    labels: Int[Tensor, "q s"]
    attend: Bool[Tensor, "q s"]


@dataclass(frozen=True)
class Drawing:
    """Masks as a decoder drew them.

    Args:
        mask_logits: at the decoder's own resolution of the whole canvas; above 0 is inside.
        dialogue_index: the dialogue that each mask belongs to.
        class_logits: over the memory's classes, where a memory with classes read the prompts.
        presence: logit that the thing asked for is there at all, where a decoder predicts it.
        quality: predicted IoU of each mask, where a decoder predicts it.
        where: logits over coarse cells of the canvas, softmax over all of them: where a decoder that says so expects the object before it draws.
        auxiliary: earlier masks of the same objects (coarser levels, first looks), coarse to fine, for deep supervision.
    """

    mask_logits: Float[Tensor, "m h w"]
    dialogue_index: Int[Tensor, " m"]
    class_logits: Float[Tensor, "m p"] | None = None
    presence: Float[Tensor, " m"] | None = None
    quality: Float[Tensor, " m"] | None = None
    where: Float[Tensor, "m _ _"] | None = None
    auxiliary: tuple[Float[Tensor, "m _ _"], ...] = ()


@dataclass(frozen=True)
class Output:
    """What one forward pass over finished dialogues gives.

    Args:
        logits: for answer positions only.
        labels: the id to be predicted at each of them.
        class_ids: the true class of each mask in the memory's vocabulary, -1 where unknown.
    """

    logits: Float[Tensor, "a v"]
    labels: Int[Tensor, " a"]
    drawing: Drawing
    class_ids: Int[Tensor, " m"]


@dataclass(frozen=True)
class Prediction:
    """What the model answered to each dialogue, turn by turn, and what it drew.

    ``drawing.dialogue_index`` is ascending; within a dialogue masks follow the order of ``[SEG]`` in its answers.
    """

    answers: tuple[tuple[str, ...], ...]
    drawing: Drawing
