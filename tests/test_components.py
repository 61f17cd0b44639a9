"""The contract of each family, run over every part that exists: adding a file adds its tests."""

import importlib
import inspect
import pkgutil

import pytest
import torch

import geopix
from geopix.contracts import Component, Connector, LanguageModel, MaskDecoder, Memory, VisionEncoder
from geopix.types import Turn
from tests.tiny import TINY

for module in pkgutil.walk_packages(geopix.__path__, "geopix."):
    if module.name.split(".")[1] in {"encoders", "connectors", "llms", "decoders", "memory"}:
        importlib.import_module(module.name)


def parts(family: type) -> list[type]:
    found = [part for child in family.__subclasses__() for part in [child, *parts(child)]]
    return [part for part in found if not inspect.isabstract(part) and part.__module__.startswith("geopix.")]


def tiny(part: type, *widths: object):
    if part in TINY:
        return TINY[part](*widths)
    signature = inspect.signature(part)
    needed = [p.name for p in signature.parameters.values() if p.default is p.empty and p.kind is p.KEYWORD_ONLY]
    if needed or (not widths and any(p.default is p.empty for p in signature.parameters.values())):
        pytest.fail(f"{part.__name__} cannot be built without arguments: give it one line in tests/tiny.py")
    return part(*widths)


every = pytest.mark.parametrize


def gradients_reach(part: torch.nn.Module) -> None:
    missed = [name for name, parameter in part.named_parameters() if parameter.requires_grad and parameter.grad is None]
    assert not missed, f"no gradient reaches {missed}"


def check_save_and_reload(part: torch.nn.Module, again: torch.nn.Module, run) -> None:
    again.load_state_dict(part.state_dict())
    part.eval()
    again.eval()
    with torch.no_grad():
        for one, two in zip(run(part), run(again), strict=True):
            torch.testing.assert_close(one, two)


def test_every_part_belongs_to_a_family() -> None:
    families = {VisionEncoder, Connector, LanguageModel, MaskDecoder, Memory}
    assert set(Component.__subclasses__()) <= families
    assert all(parts(family) for family in families)


# ---------------------------------------------------------------- encoders


@every("part", parts(VisionEncoder))
@every("size", [(64, 64), (48, 80), (50, 37)])
def test_encoder_tells_the_truth_about_its_maps(part: type, size: tuple[int, int]) -> None:
    encoder = tiny(part).eval()
    with torch.no_grad():
        maps = encoder(torch.rand(2, encoder.bands, *size))
    assert len(maps) == len(encoder.channels) == len(encoder.strides)
    assert list(encoder.strides) == sorted(encoder.strides), "finest first"
    for features, channels, stride in zip(maps, encoder.channels, encoder.strides, strict=True):
        assert features.shape == (2, channels, -(-size[0] // stride), -(-size[1] // stride))


@every("part", parts(VisionEncoder))
def test_encoder_neighbours_gradients_and_reload(part: type) -> None:
    encoder = tiny(part)
    images = torch.rand(2, encoder.bands, 64, 64)
    if any(parameter.requires_grad for parameter in encoder.parameters()):
        sum(features.square().sum() for features in encoder(images)).backward()
        gradients_reach(encoder)
    encoder.eval()
    with torch.no_grad():
        both, alone = encoder(images), encoder(images[1:])
    for one, two in zip(both, alone, strict=True):
        torch.testing.assert_close(one[1:], two, rtol=1e-4, atol=1e-5)
    check_save_and_reload(encoder, tiny(part), lambda part: part(images))


# ---------------------------------------------------------------- connectors


@every("part", parts(Connector))
@every("channels", [(12,), (6, 12)])
@every("size", [(48, 64), (50, 37)])
def test_connector(part: type, channels: tuple[int, ...], size: tuple[int, int]) -> None:
    connector, strides = tiny(part, channels, 20), (4, 8)[-len(channels) :]
    features = [torch.randn(2, width, -(-size[0] // stride), -(-size[1] // stride)) for width, stride in zip(channels, strides, strict=True)]
    tokens = connector(features)
    assert tokens.shape[0] == 2
    assert tokens.shape[2] == 20
    tokens.square().sum().backward()
    gradients_reach(connector)
    connector.eval()
    torch.testing.assert_close(connector([maps[1:] for maps in features]), connector(features)[1:], rtol=1e-4, atol=1e-5)
    check_save_and_reload(connector, tiny(part, channels, 20), lambda part: [part(features)])
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert connector(features).isfinite().all()


# ---------------------------------------------------------------- language models

ASKED = [(Turn("[segment] can you segment the ship?", "Sure, it is [SEG]."),), (Turn("[vqa] is there a plane?", "no"), Turn("[vqa] a ship?", "yes"))]


@every("part", parts(LanguageModel))
def test_language_model_reads_and_writes(part: type) -> None:
    llm = tiny(part).eval()
    tokens = llm.tokenize(ASKED, 3)
    assert ((tokens.ids == llm.image_id).sum(1) == 3).all()
    assert not tokens.attend[tokens.ids.shape[0] - 1 - int(tokens.attend.sum(1).argmax()), 0], "padding stands on the left"
    with torch.no_grad():
        hidden = llm(llm.embed(tokens.ids), tokens.attend)
        asked = llm.tokenize(ASKED, 3, ask=True)
        ids, states = llm.generate(llm.embed(asked.ids), asked.attend, 5)
        alone = llm.tokenize(ASKED[:1], 3)
        single = llm(llm.embed(alone.ids), alone.attend)
    assert hidden.shape == (*tokens.ids.shape, llm.dim)
    assert states.shape == (2, ids.shape[1] + 1, llm.dim)
    torch.testing.assert_close(hidden[0][tokens.attend[0]], single[0][alone.attend[0]], rtol=1e-4, atol=1e-4)
    assert len(llm.decode(ids)) == 2
    words = llm.embed_words(["ship", "large red ship", "ship"])
    assert words.shape == (3, llm.dim)
    assert torch.equal(words[0], words[2])
    assert not torch.allclose(words[0], words[1])
    assert llm.embed_words([]).shape == (0, llm.dim)


@every("part", parts(LanguageModel))
def test_language_model_learns_and_reloads(part: type) -> None:
    llm = tiny(part)
    tokens = llm.tokenize(ASKED, 3)
    llm.head(llm(llm.embed(tokens.ids), tokens.attend)[tokens.attend]).square().sum().backward()
    gradients_reach(llm)
    check_save_and_reload(llm, tiny(part), lambda part: [part(part.embed(tokens.ids), tokens.attend)])


# ---------------------------------------------------------------- decoders and memories

CHANNELS, WIDTH = (8, 16), 20


def inputs(decoder: MaskDecoder, masks: int, size: tuple[int, int] = (64, 64)):
    features = [torch.randn(3, width, size[0] // stride, size[1] // stride) for width, stride in zip(CHANNELS, (4, 8), strict=True)]
    return features, torch.randn(masks, decoder.num_tokens or 6, WIDTH), torch.tensor([0, 2, 2, 1, 0][:masks])


def embed_words(texts):
    return torch.stack([torch.randn(WIDTH, generator=torch.Generator().manual_seed(len(text))) for text in texts])


@every("part", parts(Memory))
@every("size", [(8, 8), (7, 5)])
def test_memory_observes_neighbours_nothing_to_draw_and_reload(part: type, size: tuple[int, int]) -> None:
    memory, index, class_ids = tiny(part, CHANNELS, WIDTH), torch.tensor([0, 2, 2, 1, 0]), torch.tensor([0, -1, 1, -1, 0])
    maps, logits, prompts = [torch.randn(3, width, *size) for width in CHANNELS], 3 * torch.randn(5, 20, 16), torch.randn(5, 6, WIDTH)
    memory.know_names(embed_words)
    parameters = [parameter.detach().clone() for parameter in memory.parameters()]
    for seen, masks in [(maps, 5), (maps, 0), ([], 5), ([], 0)]:
        memory.observe(dict(enumerate(seen)), index[:masks], logits[:masks] > 0, class_ids[:masks])
    assert all(torch.equal(parameter, before) for parameter, before in zip(memory.parameters(), parameters, strict=True)), "gradients alone move parameters"

    def read(memory, first=0, last=5):
        called = {"prompts": prompts[first:last], "class_ids": class_ids[first:last]}
        return [memory(features, index[first:last], logits[first:last], level, **called) for level, features in enumerate(maps)]

    refined = read(memory)
    assert [features.shape for features in refined] == [(5, width, *size) for width in CHANNELS]
    for one, two in zip(read(memory, 1, 3), refined, strict=True):
        torch.testing.assert_close(one, two[1:3], rtol=1e-4, atol=1e-5)
    assert [len(features) for features in read(memory, 0, 0)] == [0] * len(CHANNELS)
    again = tiny(part, CHANNELS, WIDTH)
    again.know_names(embed_words)
    check_save_and_reload(memory, again, read)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert all(features.isfinite().all() for features in read(memory))
        memory.observe(dict(enumerate(maps)), index, logits > 0, class_ids)


@every("part", parts(MaskDecoder))
@every("memory", [None, *parts(Memory)])
def test_decoder_with_every_memory(part: type, memory: type | None) -> None:
    decoder = tiny(part, CHANNELS, WIDTH)
    features, prompts, index = inputs(decoder, 5)
    remembering = None if memory is None else tiny(memory, decoder.memory_channels, WIDTH)
    if remembering is not None:
        remembering.know_names(embed_words)
    calls = []

    def recall(maps, image_index, logits, level):
        calls.append(level)
        return remembering(maps, image_index, logits, level, prompts=prompts[: len(logits)], class_ids=torch.tensor([0, -1, 1, -1, 2])[: len(logits)])

    drawing = decoder(features, prompts, index, recall if remembering is not None else None)
    assert drawing.mask_logits.shape[0] == 5
    whole = drawing.mask_logits.square().sum() + sum(mask.square().sum() for mask in drawing.auxiliary)
    whole = whole + sum(extra.square().sum() for extra in (drawing.quality, drawing.presence, drawing.where) if extra is not None)
    if remembering is not None:
        whole = whole + remembering.classify(prompts).square().sum()
        assert sorted(set(calls)) == list(range(len(decoder.memory_channels)))
    whole.backward()
    gradients_reach(decoder)
    if remembering is not None:
        gradients_reach(remembering)
        assert remembering.classify(prompts).shape == (5, len(remembering.classes))


@every("part", parts(MaskDecoder))
@every("size", [(64, 64), (64, 96), (56, 40)])
def test_decoder_sizes_neighbours_and_nothing_to_draw(part: type, size: tuple[int, int]) -> None:
    decoder = tiny(part, CHANNELS, WIDTH).eval()
    features, prompts, index = inputs(decoder, 5, size)
    with torch.no_grad():
        both = decoder(features, prompts, index).mask_logits
        alone = decoder([maps[2:] for maps in features], prompts[1:3], index[1:3] - 2).mask_logits
        nothing = decoder(features, prompts[:0], index[:0]).mask_logits
    torch.testing.assert_close(both[1:3], alone, rtol=1e-3, atol=1e-4)
    assert nothing.shape == (0, *both.shape[1:])
    rows, columns = both.shape[1:]
    assert abs(rows / columns - size[0] / size[1]) < 0.1, "the mask covers the whole canvas in its own proportions"
    check_save_and_reload(decoder, tiny(part, CHANNELS, WIDTH), lambda part: [part(features, prompts, index).mask_logits])


@every("part", [*parts(MaskDecoder)])
def test_decoder_under_autocast(part: type) -> None:
    decoder = tiny(part, CHANNELS, WIDTH).eval()
    features, prompts, index = inputs(decoder, 3)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert decoder(features, prompts, index).mask_logits.isfinite().all()


# ---------------------------------------------------------------- whole parts: bfloat16, and a second device


@every("part", parts(VisionEncoder))
def test_encoder_under_autocast(part: type) -> None:
    encoder = tiny(part).eval()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert all(features.isfinite().all() for features in encoder(torch.rand(2, encoder.bands, 64, 64)))


def run_of(part: type):
    """A tiny instance and what it makes of fixed inputs on a device."""
    if issubclass(part, VisionEncoder):
        encoder = tiny(part).eval()
        images = torch.rand(2, encoder.bands, 64, 64)
        return encoder, lambda device: encoder(images.to(device))
    if issubclass(part, Connector):
        connector, maps = tiny(part, (6, 12), 20).eval(), [torch.randn(2, 6, 16, 16), torch.randn(2, 12, 8, 8)]
        return connector, lambda device: [connector([each.to(device) for each in maps])]
    if issubclass(part, LanguageModel):
        llm = tiny(part).eval()
        tokens = llm.tokenize(ASKED, 3)
        return llm, lambda device: [llm(llm.embed(tokens.ids.to(device)), tokens.attend.to(device))[:, -1]]
    if issubclass(part, MaskDecoder):
        decoder = tiny(part, CHANNELS, WIDTH).eval()
        features, prompts, index = inputs(decoder, 3)
        return decoder, lambda device: [decoder([each.to(device) for each in features], prompts.to(device), index.to(device)).mask_logits]
    memory = tiny(part, (16,), WIDTH).eval()
    features, masks, prompts, words = torch.randn(2, 16, 8, 8), torch.randn(3, 16, 16), torch.randn(3, 6, WIDTH), torch.randn(len(memory.classes), WIDTH)

    def recall(device: object) -> list[torch.Tensor]:
        memory.know_names(lambda texts: words.to(device))
        index, unknown = torch.tensor([0, 1, 1], device=device), torch.full((3,), -1, device=device)
        return [memory(features.to(device), index, masks.to(device), 0, prompts=prompts.to(device), class_ids=unknown)]

    return memory, recall


@every("part", [part for family in (VisionEncoder, Connector, LanguageModel, MaskDecoder, Memory) for part in parts(family)])
def test_a_second_device_gives_the_same(part: type) -> None:
    if not torch.accelerator.is_available():
        pytest.skip("no accelerator beside the CPU")
    torch.manual_seed(0)
    module, run = run_of(part)
    device = torch.accelerator.current_accelerator()
    with torch.no_grad():
        here = run(torch.device("cpu"))
        module.to(device)
        there = run(device)
    for one, two in zip(here, there, strict=True):
        torch.testing.assert_close(two.cpu(), one, rtol=1e-2, atol=1e-2)


@every("part", [part for family in (VisionEncoder, Connector, LanguageModel, MaskDecoder, Memory) for part in parts(family)])
def test_the_same_inputs_give_the_same_maps_on_this_device(part: type) -> None:
    torch.manual_seed(0)
    _, run = run_of(part)
    with torch.no_grad():
        one, two = run(torch.device("cpu")), run(torch.device("cpu"))
    for first, second in zip(one, two, strict=True):
        torch.testing.assert_close(first, second)
