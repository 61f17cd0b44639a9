"""Tiny instances of real parts. A part that cannot be built without arguments has one line here; the contract tests fail without it."""

from collections.abc import Iterable
from functools import partial

from geopix.connectors.abstractor import ConvAbstractor
from geopix.connectors.mlp import MLPConnector
from geopix.connectors.qformer import QFormerConnector
from geopix.connectors.resampler import PerceiverResampler
from geopix.decoders.dot import DotDecoder
from geopix.decoders.multi_scale import MultiScaleDecoder
from geopix.encoders.hf import HFVisionEncoder
from geopix.encoders.timm import TimmEncoder
from geopix.llms.hf import HFLanguageModel
from geopix.llms.tokenizer import train_tokenizer
from geopix.memory.classwise import ClasswiseMemory
from geopix.model import GeoPixModel

CLASSES = ("ship", "plane", "building")
LLAMA = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
CLIP = {"model_type": "clip_vision_model", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 4, "num_attention_heads": 2}
CLIP |= {"image_size": 32, "patch_size": 8}


class Words:
    """A handful of sentences to train a tokenizer from."""

    def texts(self) -> Iterable[str]:
        yield from ("[segment] can you segment the large red ship at the top left?", "Sure, it is [SEG].", "Sure, they are [SEG] and [SEG].")
        yield from ("[vqa] is there a plane in the image?", "yes", "no", "There is no plane in this image.", "[caption] Describe the image in detail")


def tokenizer():
    return train_tokenizer(Words(), vocab_size=512)


TINY = {
    TimmEncoder: partial(TimmEncoder, "resnet18", levels=[1, 2], options={"layers": [1, 1, 1, 1], "channels": [8, 16, 16, 16]}),
    HFVisionEncoder: partial(HFVisionEncoder, CLIP, hidden_layers=(-3, -2)),
    HFLanguageModel: lambda: HFLanguageModel(source=LLAMA, tokenizer=tokenizer(), seg_tokens=6),
    ClasswiseMemory: partial(ClasswiseMemory, classes=CLASSES, slots=3, dim=8, heads=2, ffn=16, grid=8),
    MultiScaleDecoder: partial(MultiScaleDecoder, dim=16, neck_dim=8, grid=8, heads=2, mlp_dim=16),
    DotDecoder: partial(DotDecoder, dim=8),
    MLPConnector: partial(MLPConnector, hidden=24),
    PerceiverResampler: partial(PerceiverResampler, tokens=5, depth=2, heads=2, head_dim=4),
    QFormerConnector: partial(QFormerConnector, tokens=5, dim=16, depth=2, heads=2, ffn=24),
    ConvAbstractor: partial(ConvAbstractor, side=3, dim=8, depth=2),
}


def model(memory: bool = True, decoder: type = MultiScaleDecoder) -> GeoPixModel:
    """A whole model of about a hundred thousand parameters."""
    return GeoPixModel(TINY[TimmEncoder](), TINY[MLPConnector], TINY[HFLanguageModel](), TINY[decoder], TINY[ClasswiseMemory] if memory else None)
