"""Tiny instances of real parts. A part that cannot be built without arguments has one line here; the contract tests fail without it."""

from collections.abc import Iterable
from functools import partial

from geopix.connectors.abstractor import ConvAbstractor
from geopix.connectors.hf import QFormerConnector
from geopix.connectors.mlp import MLPConnector
from geopix.connectors.resampler import PerceiverResampler
from geopix.decoders.dot import DotDecoder
from geopix.decoders.multi_scale import MultiScaleDecoder
from geopix.decoders.query import QueryDecoder
from geopix.decoders.sam2 import Sam2Decoder
from geopix.decoders.two_way import TwoWayDecoder
from geopix.decoders.unet import FPNDecoder, UNetDecoder, UPerNetDecoder
from geopix.encoders.hf import HFVisionEncoder
from geopix.encoders.hierarchical.hf import HFBackboneEncoder
from geopix.encoders.lora.hf import LoRAEncoder
from geopix.encoders.reduced import ReducedEncoder
from geopix.encoders.sam.hf import Sam2Encoder, SamEncoder
from geopix.encoders.smp import SmpEncoder
from geopix.encoders.tiled import TiledEncoder
from geopix.encoders.timm import TimmEncoder
from geopix.llms.hf import HFLanguageModel
from geopix.llms.tokenizer import train_tokenizer
from geopix.memory.classwise import ClasswiseMemory
from geopix.memory.language_keyed import LanguageKeyedMemory
from geopix.memory.low_rank import LowRankMemory
from geopix.memory.prototype import PrototypeMemory
from geopix.memory.retrieval import RetrievalMemory
from geopix.model import GeoPixModel

CLASSES = ("ship", "plane", "building")
LLAMA = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
CLIP = {"model_type": "clip_vision_model", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 4, "num_attention_heads": 2}
CLIP |= {"image_size": 32, "patch_size": 8}
SAM = {"model_type": "sam_vision_model", "hidden_size": 16, "output_channels": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_dim": 24}
SAM |= {"image_size": 64, "window_size": 3, "global_attn_indexes": [1]}
HIERA = {"model_type": "sam2_hiera_det_model", "hidden_size": 8, "embed_dim_per_stage": [8, 16, 24, 32], "num_attention_heads_per_stage": [1, 2, 2, 2]}
HIERA |= {"blocks_per_stage": [1, 1, 2, 1], "global_attention_blocks": [3], "window_size_per_stage": [4, 2, 4, 2]}
SAM2 = {"model_type": "sam2_vision_model", "backbone_config": HIERA, "backbone_channel_list": [32, 24, 16, 8], "fpn_hidden_size": 12}
SWIN = {"model_type": "swin", "embed_dim": 8, "depths": [1, 2, 1, 1], "num_heads": [1, 2, 2, 2], "window_size": 3, "image_size": 64}


class Words:
    """A handful of sentences to train a tokenizer from."""

    def texts(self) -> Iterable[str]:
        yield from ("[segment] can you segment the large red ship at the top left?", "Sure, it is [SEG].", "Sure, they are [SEG] and [SEG].")
        yield from ("[vqa] is there a plane in the image?", "yes", "no", "There is no plane in this image.", "[caption] Describe the image in detail")


def tokenizer():
    return train_tokenizer(Words(), vocab_size=512)


TINY = {
    TimmEncoder: partial(TimmEncoder, "resnet18", levels=[1, 2], options={"layers": [1, 1, 1, 1], "channels": [8, 16, 16, 16]}),
    SmpEncoder: partial(SmpEncoder, "mobilenet_v2", levels=[2, 3]),
    TiledEncoder: lambda: TiledEncoder(TINY[TimmEncoder](), tile=32, overlap=8, shrink=2),
    ReducedEncoder: lambda: ReducedEncoder(TINY[TimmEncoder](), stride=12),
    HFVisionEncoder: partial(HFVisionEncoder, CLIP, hidden_layers=(-3, -2)),
    SamEncoder: partial(SamEncoder, SAM, freeze=False),
    Sam2Encoder: partial(Sam2Encoder, SAM2, freeze=False),
    HFBackboneEncoder: partial(HFBackboneEncoder, SWIN, levels=(0, 1, 2), freeze=False),
    LoRAEncoder: lambda: LoRAEncoder(HFVisionEncoder(CLIP, hidden_layers=(-3, -2)), targets=["q_proj", "fc*"], rank=2, dropout=0.1),
    HFLanguageModel: lambda: HFLanguageModel(source=LLAMA, tokenizer=tokenizer(), seg_tokens=6),
    ClasswiseMemory: partial(ClasswiseMemory, classes=CLASSES, slots=3, dim=8, heads=2, ffn=16, grid=8),
    LowRankMemory: partial(LowRankMemory, classes=CLASSES, rank=2, slots=3, dim=8, heads=2, ffn=16, grid=8),
    PrototypeMemory: partial(PrototypeMemory, classes=CLASSES, dim=8, heads=2, ffn=16, grid=8),
    LanguageKeyedMemory: partial(LanguageKeyedMemory, classes=CLASSES, groups=4, slots=3, dim=8, heads=2, ffn=16, grid=8),
    RetrievalMemory: partial(RetrievalMemory, classes=CLASSES, size=12, nearest=3, per_step=4, dim=8, heads=2, ffn=16, grid=8),
    MultiScaleDecoder: partial(MultiScaleDecoder, dim=16, neck_dim=8, grid=8, heads=2, mlp_dim=16),
    DotDecoder: partial(DotDecoder, dim=8),
    TwoWayDecoder: partial(TwoWayDecoder, dim=16, heads=2, mlp_dim=24),
    Sam2Decoder: partial(Sam2Decoder, dim=16, heads=2, mlp_dim=24),
    QueryDecoder: partial(QueryDecoder, dim=16, depth=2, heads=2, ffn=16, learned_queries=1),
    UNetDecoder: partial(UNetDecoder, dim=16, min_dim=8, pixel_dim=8, hidden=16),
    FPNDecoder: partial(FPNDecoder, dim=16, segmentation_dim=32, pixel_dim=8, hidden=16),
    UPerNetDecoder: partial(UPerNetDecoder, dim=16, pixel_dim=8, hidden=16),
    MLPConnector: partial(MLPConnector, hidden=24),
    PerceiverResampler: partial(PerceiverResampler, tokens=5, depth=2, heads=2, head_dim=4),
    QFormerConnector: partial(QFormerConnector, tokens=5, dim=16, depth=2, heads=2, ffn=24),
    ConvAbstractor: partial(ConvAbstractor, side=3, dim=8, depth=2),
}


def model(memory: bool = True, decoder: type = MultiScaleDecoder) -> GeoPixModel:
    """A whole model of about a hundred thousand parameters."""
    return GeoPixModel(TINY[TimmEncoder](), TINY[MLPConnector], TINY[HFLanguageModel](), TINY[decoder], TINY[ClasswiseMemory] if memory else None)
