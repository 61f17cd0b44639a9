"""The released weights ``GeoPix-ft-sior_rsicap`` (https://github.com/Norman-Ou/GeoPix) as an ordinary model, or part by part.

:func:`load_released` gives the whole model. The functions after the families give one part each, so that a YAML file can take
any of them as ``class_path`` and put another beside it; :mod:`geopix.released.names` says which tensor becomes which.

What the model computes is what the release computes, in float32. What changes no mask there is neither kept nor run: the bank of 629 million numbers,
the memory's encoder, fuser and attention, the masks that only they read, and CLIP's last layer. The quality and the place of a mask
(``Drawing.quality``, ``Drawing.where``), for which the release has no weights, say nothing: 0.5, and every cell alike.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from geopix.connectors.mlp import MLPConnector
from geopix.contracts import ConnectorFactory, MaskDecoderFactory, MemoryFactory
from geopix.decoders.multi_scale import MultiScaleDecoder
from geopix.encoders.hf import HFVisionEncoder
from geopix.llms.hf import HFLanguageModel
from geopix.llms.sources import read_tokenizer
from geopix.llms.template import DEFAULT_TEMPLATE, IMAGE
from geopix.memory.as_released import AsReleasedMemory
from geopix.model import GeoPixModel
from geopix.released import names
from geopix.released.folder import ReleasedFolder

ChannelOrder = Literal["bgr", "rgb"]

SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
"""LLaVA's system message, with which the release asks."""

LEVELS = 2
NECKS = ("image_neck_rough.pth", "image_neck_detail.pth")
"""Of level 0 and 1. Their names are the wrong way round, as in the release: level 0 reads CLIP's layer -2, the finer level 1 its layer -11."""

VLM, SEG, PEC, CLM = (f"{folder}/model.safetensors" for folder in ("vlm", "seg", "pec", "clm"))
VISION_SETTINGS = (
    "model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_channels", "image_size", "patch_size",
    "hidden_act", "layer_norm_eps", "attention_dropout",
)  # fmt: skip
TEXT_SETTINGS = (
    "model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "hidden_act",
    "max_position_embeddings", "rms_norm_eps", "rope_theta", "rope_scaling", "attention_bias", "mlp_bias", "attention_dropout", "initializer_range",
)  # fmt: skip
"""What decides what a tower computes; other settings of its file speak of the library that wrote it."""

FILES = (
    "config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "vlm/config.json", "vlm/vision/config.json",
    "vlm/text/config.json", "seg/config.json", SEG, PEC, CLM, "text_hidden_fcs.pth", *NECKS, "multiseg_scalar.pth", "multiscale_scalar.pth",
)  # fmt: skip
"""All that is read, beside the weights in ``vlm/``, which are one file or an index with its shards."""


def load_released(folder: str | Path, *, channel_order: ChannelOrder) -> GeoPixModel:
    """The released model, in float32 and in evaluation mode.

    Args:
        folder: the released weights, with ``vlm/``, ``seg/``, ``pec/``, ``clm/`` and the tokenizer.
        channel_order: the order of colours that its CLIP gets, see :func:`encoder`. Images are given as RGB either way.

    Raises:
        ValueError: with every file, tensor and setting that is missing or does not fit.
    """
    with ReleasedFolder(folder) as stored:
        stored.need(*FILES)
        tower, language = _encoder(stored, channel_order), _llm(stored)
        if tower is None or language is None:
            stored.refuse()
        assert tower is not None
        assert language is not None
        model = GeoPixModel(tower, partial(_connector, stored), language, partial(_decoder, stored), partial(_memory, stored))
    return model.eval()


def encoder(folder: str | Path, *, channel_order: ChannelOrder) -> HFVisionEncoder:
    """The released CLIP tower, frozen: its hidden states -11 and -2.

    The release reads images as blue, green, red and normalises them by the mean and deviation of red, green, blue: its CLIP sees colours
    the wrong way round, at least when it answers. Whether it did in training is not published. Images of geopix are RGB;
    with ``bgr`` the tower turns them round first (in its weights, so it costs nothing), as the release does.

    Args:
        folder: the released weights.
        channel_order: ``bgr`` to see what the release sees, ``rgb`` to see colours as CLIP was made for.

    Raises:
        ValueError: with every file, tensor and setting that is missing or does not fit.
    """
    with ReleasedFolder(folder) as stored:
        tower = _encoder(stored, channel_order)
    assert tower is not None
    return tower


def llm(folder: str | Path) -> HFLanguageModel:
    """The released language model, a LLaMA, with its own tokenizer and the six tokens of a mask.

    Args:
        folder: the released weights.

    Raises:
        ValueError: with every file, tensor and setting that is missing or does not fit, such as a tokenizer without these tokens.
    """
    with ReleasedFolder(folder) as stored:
        language = _llm(stored)
    assert language is not None
    return language


def connector(folder: str | Path) -> ConnectorFactory:
    """The released projector between CLIP and the language model.

    Args:
        folder: the released weights; opened when the model is built.
    """

    def read(channels: Sequence[int], out_dim: int) -> MLPConnector:
        with ReleasedFolder(folder) as stored:
            return _connector(stored, channels, out_dim)

    return read


def decoder(folder: str | Path) -> MaskDecoderFactory:
    """The released mask predictor, with its necks, prompt projection and learned weights.

    Args:
        folder: the released weights; opened when the model is built.
    """

    def read(channels: Sequence[int], prompt_dim: int) -> MultiScaleDecoder:
        with ReleasedFolder(folder) as stored:
            return _decoder(stored, channels, prompt_dim)

    return read


def memory(folder: str | Path) -> MemoryFactory:
    """What the released memory computes: a scale and a norm.

    Args:
        folder: the released weights; opened when the model is built.
    """

    def read(channels: Sequence[int], prompt_dim: int) -> AsReleasedMemory:
        with ReleasedFolder(folder) as stored:
            return _memory(stored, channels, prompt_dim)

    return read


# ---------------------------------------------------------------- one part each, planned in an open folder


def _encoder(stored: ReleasedFolder, channel_order: ChannelOrder) -> HFVisionEncoder | None:
    settings = stored.settings("vlm/vision/config.json", expected={"model_type": "clip_vision_model"})
    pixels = stored.settings("preprocessor_config.json")
    weights = stored.tensors(VLM)
    normal = {"image_mean", "image_std"} <= set(pixels)
    if pixels and not normal:
        stored.problems.append("settings image_mean and image_std of preprocessor_config.json: missing")
    if not settings or not normal:
        return None
    step = {"rgb": 1, "bgr": -1}[channel_order]
    source = {"model_type": "clip_vision_model"} | {name: settings[name] for name in VISION_SETTINGS if name in settings}
    with _Unfilled():
        tower = HFVisionEncoder(source, hidden_layers=(-11, -2), mean=pixels["image_mean"][::step], std=pixels["image_std"][::step])
    own = names.vision_names(name for name, _ in tower.named_parameters())
    behind = rf"|\.layers\.{len(tower.layers)}\."  # hidden state -2 leaves one layer behind it
    flip = ["embeddings.patch_embedding.weight"] if channel_order == "bgr" else []
    stored.plan(tower, weights, own, flip=flip, spare=names.SPARE_VISION + behind)
    return tower


def _llm(stored: ReleasedFolder) -> HFLanguageModel | None:
    settings = stored.settings("vlm/text/config.json", expected={"model_type": "llama", "tie_word_embeddings": False})
    count = LEVELS * _tokens_per_level(stored)
    tokens, weights = stored.settings("tokenizer.json"), stored.tensors(VLM)
    stored.need("tokenizer_config.json")
    known = {str(token.get("content")) for token in tokens.get("added_tokens", [])}
    lacking = [name for name in (IMAGE, *(f"[SEG{index}]" for index in range(count))) if name not in known]
    if tokens and lacking:
        stored.problems.append(f"tokens {', '.join(lacking)} of tokenizer.json: missing among its added tokens")
    if not settings or not tokens or lacking:
        return None
    source = {"model_type": "llama"} | {name: settings[name] for name in TEXT_SETTINGS if name in settings}
    with _Unfilled(), _without_advice():
        try:
            tokenizer = read_tokenizer(str(stored.path), source)
        except ValueError as error:
            stored.problems.append(str(error))
            return None
        longest = settings.get("max_position_embeddings", 2048)
        language = HFLanguageModel(source, tokenizer=tokenizer, seg_tokens=count, system=SYSTEM, template=DEFAULT_TEMPLATE, max_length=longest)
        rows = weights.width("language_model.model.embed_tokens.weight", 0, language.chat.num_tokens)
        if rows > language.chat.num_tokens:  # released embeddings are padded to a round number
            language.lm.resize_token_embeddings(rows, mean_resizing=False)
    stored.plan(language.lm, weights, names.text_names(name for name, _ in language.lm.named_parameters()), spare=names.SPARE_TEXT)
    return language


def _connector(stored: ReleasedFolder, channels: Sequence[int], out_dim: int) -> MLPConnector:
    expected = {"projector_hidden_act": "gelu", "vision_feature_layer": -2, "vision_feature_select_strategy": "default"}
    stored.settings("vlm/config.json", expected=expected)
    weights = stored.tensors(VLM)
    projector = MLPConnector(channels, out_dim, hidden=weights.width("multi_modal_projector.linear_1.weight", 0, out_dim))
    stored.plan(projector, weights, names.projector_names(), spare=names.SPARE_PROJECTOR)
    return projector


def _decoder(stored: ReleasedFolder, channels: Sequence[int], prompt_dim: int) -> MultiScaleDecoder:
    each, depth = _tokens_per_level(stored), stored.settings("seg/config.json").get("mask_decoder_transformer_depth", 2)
    seg, pec, projection = stored.tensors(SEG), stored.tensors(PEC), stored.pickled("text_hidden_fcs.pth")
    necks = [stored.pickled(name) for name in NECKS]
    drawing = MultiScaleDecoder(
        channels,
        prompt_dim,
        dim=seg.width("mask_decoder.mask_tokens.weight", 1, 256),
        neck_dim=necks[0].width("conv1.0.weight", 0, 512),
        tokens_per_level=each,
        depth=depth,
        mlp_dim=seg.width("mask_decoder.transformer.0.layers.0.mlp.lin1.weight", 0, 2048),
        prompt_hidden=projection.width("0.weight", 0, prompt_dim),
        mask_dim=seg.width("mask_decoder.output_upscaling.0.weight", 1, 32),
    )
    own = [name for name, _ in [*drawing.named_parameters(), *drawing.named_buffers()]]
    stored.plan(drawing, seg, names.seg_names(own), spare=names.SPARE_SEG)
    stored.plan(drawing, pec, names.PEC_NAMES, spare=names.SPARE_PEC)
    stored.plan(drawing, projection, names.PROMPT_NAMES)
    for level, neck in enumerate(necks):
        stored.plan(drawing, neck, names.neck_names(level), spare=r"num_batches_tracked$")
    stored.plan(drawing, stored.pickled("multiseg_scalar.pth", numbers=each), {"token_weights": "numbers"})
    stored.plan(drawing, stored.pickled("multiscale_scalar.pth", numbers=LEVELS), {"level_weights": "numbers"})
    for silent in (drawing.quality_mlp[-1], drawing.locator.query):  # the release has no weights for them
        for parameter in silent.parameters():
            nn.init.zeros_(parameter)
    return drawing


def _memory(stored: ReleasedFolder, channels: Sequence[int], prompt_dim: int) -> AsReleasedMemory:
    remembering = AsReleasedMemory(channels, prompt_dim)
    stored.plan(remembering, stored.tensors(CLM), names.CLM_NAMES, spare=names.SPARE_CLM)
    return remembering


def _tokens_per_level(stored: ReleasedFolder) -> int:
    return int(stored.settings("config.json", expected={"image_feature_scale_num": LEVELS}).get("seg_token_num", 3))


class _Unfilled(TorchFunctionMode):
    """Meanwhile no random numbers are drawn for weights, which of seven billion takes minutes: all of them are read afterwards."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        return args[0] if func in (Tensor.normal_, Tensor.uniform_) else func(*args, **(kwargs or {}))


@contextmanager
def _without_advice() -> Iterator[None]:
    """Without the library's advice on ``config.json``, which is the release's own and no configuration of the library."""
    logger = logging.getLogger("transformers.configuration_utils")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
