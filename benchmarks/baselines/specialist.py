"""A specialist without a language model: a small text encoder and a U-Net, one mask per expression (docs/baselines.md).

It learns on scenes for as many steps and images as configs/standard.yaml, then hands in a mask for every expression of a benchmark's segment questions:

    python -m benchmarks.baselines.specialist
    geopix score runs/baselines/specialist/predictions.jsonl --benchmark scenes_standard --family segment

The idea is that of LAVT (Yang et al. 2022, arXiv 2112.02244), which LGCE and RMSIN (Liu et al. 2024, arXiv 2312.12470) extend for remote sensing: words are
read where pixels are encoded, by cross-attention behind the stages at strides 8, 16 and 32. Nothing is pretrained.
"""

from __future__ import annotations

import argparse
import logging
import math
import re
import time
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from timm.optim import Muon
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from benchmarks.baselines.hand_in import asked, line, open_benchmark, write
from geopix.data.frame import to_own_frame
from geopix.data.module import GeoPixData
from geopix.data.scenes import Scenes, SceneTexts
from geopix.data.scenes.phrases import QUESTIONS
from geopix.data.source import Source
from geopix.llms.tokenizer import train_tokenizer
from geopix.mask_losses import bce_loss, dice_loss
from geopix.types import Batch

MIX = {"segment/single": 4.5, "segment/group": 1.0, "segment/multi": 1.2, "segment/absent": 3.7, "segment/followup": 0.4}
"""The masks of the second stage of configs/standard.yaml."""

_FRAMES = sorted(
    (question.split("{d}") for kind, forms in QUESTIONS.items() if kind.startswith("segment/") for question in forms), key=lambda frame: -sum(map(len, frame))
)
"""What stands before and after a description in a question; the longest first, since ``{d}?`` fits most of them."""

_TAG, _AND = re.compile(r"^\[\w+\] "), re.compile(r", (?=the )| and (?=the )")


def expressions(prompts: Sequence[str]) -> list[str]:
    """The expressions of a dialogue, in order; one mask is drawn for each. Questions in other words than those of the scenes are one expression.

    What was described in earlier turns stands before it, for a second turn says "the one to its left".

    >>> expressions(["[segment] where are the red ship, the pier and the largest plane?"])
    ['the red ship', 'the pier', 'the largest plane']
    >>> expressions(["[segment] outline the ship.", "[segment] and the one to its left?"])
    ['the ship', 'the ship; the one to its left']
    """
    found: list[str] = []
    before = ""
    for prompt in prompts:
        text = _TAG.sub("", prompt)
        start, end = next(((start, end) for start, end in _FRAMES if text.startswith(start) and text.endswith(end)), ("", ""))
        inner = text[len(start) : len(text) - len(end)]
        found += [before + each for each in _AND.split(inner)]
        before += f"{inner}; "
    return found


class Words(nn.Module):
    """A small transformer over the tokens of an expression.

    Args:
        vocabulary: tokens that there are.
        dim: width of a word.
        longest: tokens of the longest expression; what stands behind them is cut off.
    """

    def __init__(self, vocabulary: int, dim: int = 96, *, layers: int = 2, heads: int = 4, longest: int = 64) -> None:
        super().__init__()
        self.table, self.place = nn.Embedding(vocabulary, dim, padding_idx=0), nn.Parameter(torch.randn(longest, dim) * 0.02)
        layer = nn.TransformerEncoderLayer(dim, heads, 2 * dim, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, norm=nn.LayerNorm(dim), enable_nested_tensor=False)

    def forward(self, ids: Int[Tensor, "m s"]) -> Float[Tensor, "m s d"]:
        """Words in their context; those of padding (id 0) say nothing."""
        return self.layers(self.table(ids) + self.place[: ids.shape[1]], src_key_padding_mask=ids == 0)


class Reading(nn.Module):
    """Pixels read words: cross-attention, multiplied with the pixels and added to them through a gate (the pixel-word attention of LAVT)."""

    def __init__(self, channels: int, words: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.ask, self.own = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1)
        self.tell = nn.Linear(words, 2 * channels)
        self.norm, self.join = nn.GroupNorm(1, channels), nn.Conv2d(channels, channels, 1)
        self.gate = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.ReLU(), nn.Conv2d(channels, channels, 1), nn.Tanh())

    def forward(self, pixels: Float[Tensor, "m c h w"], words: Float[Tensor, "m s d"], said: Bool[Tensor, "m s"]) -> Float[Tensor, "m c h w"]:
        """The pixels, with what the words mean for each of them."""

        def split(flat: Tensor) -> Tensor:
            return flat.unflatten(2, (self.heads, -1)).transpose(1, 2)

        seen = self.norm(pixels)
        key, value = self.tell(words).chunk(2, dim=2)
        read = F.scaled_dot_product_attention(split(self.ask(seen).flatten(2).mT), split(key), split(value), attn_mask=said[:, None, None])
        read = self.join(F.relu(self.own(seen)) * read.transpose(1, 2).flatten(2).mT.unflatten(2, pixels.shape[2:]))
        return pixels + self.gate(read) * read


class Specialist(LightningModule):
    """Text encoder, residual network and U-Net; words are read at strides 8, 16 and 32.

    The map of stride 8 and what lies before it are made once per image, the rest once per expression.

    Args:
        tokenizer: pads with id 0.
        steps: of the training, over which the learning rate rises and falls.
        widths: of the four stages.
        blocks: of the four stages.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        steps: int,
        *,
        lr: float = 1e-2,
        widths: Sequence[int] = (48, 96, 128, 128),
        blocks: Sequence[int] = (2, 3, 2, 2),
        words: int = 96,
    ) -> None:
        super().__init__()
        self.tokenizer, self.steps, self.lr = tokenizer, steps, lr
        # Two more bands say where a pixel lies, which convolutions cannot tell.
        net = timm.create_model("resnet18", in_chans=5, num_classes=0, layers=list(blocks), channels=list(widths), stem_type="deep", stem_width=widths[0] // 2)
        self.stem = nn.Sequential(net.conv1, net.bn1, net.act1)
        self.quarter, self.eighth, self.later = nn.Sequential(net.maxpool, net.layer1), net.layer2, nn.ModuleList([nn.Identity(), net.layer3, net.layer4])
        self.words = Words(len(tokenizer), words)
        self.readings = nn.ModuleList(Reading(width, words) for width in widths[1:])
        self.body = UnetDecoder((5, widths[0], *widths), (widths[2], widths[1], widths[0], widths[0] // 3), n_blocks=4)
        self.head = nn.Conv2d(widths[0] // 3, 1, 1)
        nn.init.constant_(self.head.bias, -0.75)  # times 4, as all logits: few pixels are inside, and a small head alone is slow to become sure of any
        self.presence = nn.Sequential(nn.Linear(2 * widths[3] + words, widths[3]), nn.ReLU(), nn.Linear(widths[3], 1))

    def forward(
        self, images: Float[Tensor, "b c h w"], texts: Sequence[str], image_index: Int[Tensor, " m"]
    ) -> tuple[Float[Tensor, "m h w"], Float[Tensor, " m"]]:
        """Mask logits at the size of the images, and the logit that what a text describes is there at all."""
        ids = self._ids(texts)
        said, words = ids != 0, self.words(ids)
        height, width = images.shape[2:]
        rows, columns = (torch.linspace(-1, 1, side, device=images.device) for side in (height, width))
        where = torch.stack([rows[:, None].expand(height, width), columns.expand(height, width)])
        half = self.stem(torch.cat([(images - 0.5) / 0.25, where.expand(len(images), -1, -1, -1)], dim=1))
        quarter = self.quarter(half)
        pixels = self.eighth(quarter)[image_index]
        maps = [half[image_index], quarter[image_index]]
        for stage, reading in zip(self.later, self.readings, strict=True):
            pixels = reading(stage(pixels), words, said)
            maps.append(pixels)
        mask_logits = F.interpolate(4 * self.head(self.body([images, *maps])).float(), (height, width), mode="bilinear", align_corners=False)[:, 0]
        sentence = (words * said[..., None]).sum(1) / said.sum(1, keepdim=True)
        return mask_logits, self.presence(torch.cat([pixels.mean((2, 3)), pixels.amax((2, 3)), sentence], dim=1))[:, 0].float()

    def _ids(self, texts: Sequence[str]) -> Int[Tensor, "m s"]:
        longest = len(self.words.place)
        rows = [torch.tensor(self.tokenizer(f" {text}", add_special_tokens=False)["input_ids"][:longest]) for text in texts]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True).to(self.device)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """BCE of every mask, an absent thing's is empty; Dice of those that are there; BCE of presence.

        Raises:
            ValueError: when a question is split into another number of expressions than its answer has masks.
        """
        texts, there, owners = [], [], []
        masks = torch.bincount(batch.dialogue_index, minlength=len(batch.dialogues)).tolist()
        for row, turns in enumerate(batch.dialogues):
            found = expressions([turn.prompt for turn in turns])
            if masks[row] not in (0, len(found)):
                raise ValueError(
                    f"{[turn.prompt for turn in turns]} has {masks[row]} masks but reads as {found}; train on questions worded as those of scenes."
                )
            texts += found
            there += [masks[row] > 0] * len(found)
            owners += [row] * len(found)
        present = torch.tensor(there, device=self.device)
        truth = batch.masks.new_zeros(len(texts), *batch.masks.shape[1:])
        truth[present] = batch.masks
        logits, presence = self(batch.images, texts, batch.image_index[torch.tensor(owners, device=self.device)])
        terms = {
            "bce": bce_loss(logits, truth)[0] / len(texts),
            "dice": dice_loss(logits[present], batch.masks)[0] / max(len(batch.masks), 1),
            "presence": F.binary_cross_entropy_with_logits(presence, present.float()),
        }
        self.log_dict({name: value.detach() for name, value in terms.items()}, prog_bar=True, batch_size=1)
        return 2 * terms["bce"] + 2 * terms["dice"] + terms["presence"]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Muon as in configs/standard.yaml; the rate rises over the first twentieth of the training and falls to a fiftieth by a half cosine."""
        parameters, tables = list(self.parameters()), {id(self.words.table.weight), id(self.words.place)}
        groups: list[dict[str, object]] = [
            {"params": [each for each in parameters if each.ndim > 1 and id(each) not in tables]},
            {"params": [each for each in parameters if id(each) in tables], "use_fallback": True},
            {"params": [each for each in parameters if each.ndim == 1], "weight_decay": 0.0, "use_fallback": True},
        ]
        optimizer = Muon(groups, self.lr, momentum=0.95, nesterov=True, betas=(0.9, 0.95), weight_decay=0.05, fallback_lr_scale=0.3)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(_rate, steps=self.steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def _rate(step: int, steps: int) -> float:
    rise = max(steps // 20, 1)
    return (step + 1) / rise if step < rise else 0.02 + 0.98 * (1 + math.cos(math.pi * (step - rise) / max(steps - rise, 1))) / 2


@torch.no_grad()
def answer(model: Specialist, source: Source, presence: float) -> Iterator[str]:
    """Lines of predictions: a mask for each expression, empty where presence is less probable than asked for."""
    model.eval()
    for samples, found in asked(source, 8):
        texts = [expressions(question.prompts) for question in found]
        owners = torch.tensor([question.image for question, each in zip(found, texts, strict=True) for _ in each], dtype=torch.long)
        images = torch.stack([sample.image for sample in samples]).to(model.device)
        logits, there = model(images, [text for each in texts for text in each], owners.to(model.device))
        drawn = iter(zip(logits.cpu(), (there.sigmoid() >= presence).tolist(), strict=True))
        for question, each in zip(found, texts, strict=True):
            masks = [next(drawn) for _ in each]
            own = [to_own_frame(mask[None], samples[question.image].frame)[0] > 0 for mask, _ in masks]
            yield line(question, [""] * len(question.prompts), [mask & sure for mask, (_, sure) in zip(own, masks, strict=True)])


def main(words: Sequence[str] | None = None) -> None:
    """Train, then answer a benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--level", default="standard", choices=["easy", "standard", "hard"], help="of the scenes to learn from")
    parser.add_argument("--benchmark", help="a name in benchmarks/, or a file (default: scenes_LEVEL)")
    parser.add_argument("--benchmark_root", type=Path, default=Path("data"))
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--batch", type=int, default=20, help="images per step")
    parser.add_argument("--dialogues", type=int, default=4, help="per image")
    parser.add_argument("--size", type=int, default=128, help="rows and columns in pixels")
    parser.add_argument("--scenes", type=int, help="learn from these few scenes over and over (default: endless)")
    parser.add_argument("--texts", type=int, default=500, help="scenes whose text the tokenizer is trained from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lr", type=float, default=1e-2)
    parser.add_argument("--precision", default="32-true", help="bf16-mixed is faster where the machine computes in it")
    parser.add_argument("--presence", type=float, default=0.5, help="draw where the thing is at least as probable as this; choose it on other scenes")
    parser.add_argument("--ckpt", type=Path, help="answer with these weights and train nothing")
    parser.add_argument("--out", type=Path, default=Path("runs/baselines/specialist/predictions.jsonl"))
    said = parser.parse_args(words)
    benchmark = said.benchmark or f"scenes_{said.level}"
    test = open_benchmark(benchmark, said.benchmark_root)

    for meant in ("(?s).*does not have many workers", r"`isinstance\(treespec, LeafSpec\)` is deprecated", "(?s).*but have no `validation_step`"):
        warnings.filterwarnings("ignore", message=meant)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    seed_everything(said.seed, verbose=False)
    model = Specialist(train_tokenizer(SceneTexts(said.level, said.texts), vocab_size=1200), said.steps, lr=said.lr).to(memory_format=torch.channels_last)
    trainer = Trainer(
        accelerator="auto", devices=1, precision=said.precision, max_epochs=1, gradient_clip_val=1.0, logger=False, enable_checkpointing=False,
        enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip
    if said.ckpt is not None:
        model.load_state_dict(torch.load(said.ckpt, map_location="cpu", weights_only=True))
    else:
        train = Scenes(said.level, "train", said.size, said.scenes, dialogues=said.dialogues, mix=MIX)
        began = time.perf_counter()
        trainer.fit(model, datamodule=GeoPixData(train, samples=said.steps * said.batch, batch_size=said.batch))
        print(f"{sum(each.numel() for each in model.parameters()):,} parameters, {(time.perf_counter() - began) / said.steps:.2f} s per step")
        said.out.parent.mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), said.out.with_suffix(".pt"))
    write(said.out, answer(model, test, said.presence), benchmark)


if __name__ == "__main__":
    main()
