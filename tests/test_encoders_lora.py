"""LoRAEncoder: adapters in chosen layers of any encoder, and nothing else that learns."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn

from geopix.contracts import VisionEncoder
from geopix.encoders.hf import HFVisionEncoder
from geopix.encoders.lora.hf import LoRAEncoder
from geopix.encoders.timm import TimmEncoder
from tests.tiny import CLIP

VIT = {"embed_dim": 16, "depth": 2, "num_heads": 2, "img_size": 32, "patch_size": 8}
ENCODERS: dict[str, tuple[Callable[[], VisionEncoder], list[str]]] = {
    "clip": (partial(HFVisionEncoder, CLIP, hidden_layers=(-3, -2)), ["q_proj", "v_proj"]),
    "timm": (lambda: TimmEncoder("vit_tiny_patch16_224", levels=[-1], options=VIT), ["qkv", "fc*"]),
}
IMAGES = torch.rand(2, 3, 48, 40)


@pytest.fixture(params=ENCODERS)
def made(request: pytest.FixtureRequest) -> tuple[VisionEncoder, list[str]]:
    torch.manual_seed(0)
    build, targets = ENCODERS[request.param]
    return build(), targets


def same(one: list[torch.Tensor], two: list[torch.Tensor]) -> bool:
    return all(torch.allclose(a, b, atol=1e-6) for a, b in zip(one, two, strict=True))


def test_it_starts_as_the_encoder_and_one_step_moves_the_adapters_alone(made: tuple[VisionEncoder, list[str]]) -> None:
    encoder, targets = made
    with torch.no_grad():
        expected = encoder.eval()(IMAGES)
    adapted = LoRAEncoder(encoder, targets=targets, rank=2)
    assert (adapted.bands, adapted.channels, adapted.strides) == (encoder.bands, encoder.channels, encoder.strides)
    assert same(adapted(IMAGES), expected)
    learning = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert learning
    assert all(".lora_A." in name or ".lora_B." in name for name in learning)
    before = {name: value.clone() for name, value in adapted.state_dict().items()}
    optimizer = torch.optim.SGD([parameter for parameter in adapted.parameters() if parameter.requires_grad], lr=0.1)
    sum(level.square().sum() for level in adapted(IMAGES)).backward()
    optimizer.step()
    moved = {name for name, value in adapted.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {name for name in learning if ".lora_B." in name}, "A moves from the second step on, since B starts at zero"
    assert not same(adapted(IMAGES), expected)


def test_targets_are_ends_of_paths_or_globs() -> None:
    def adapted(*targets: str) -> list[str]:
        made = LoRAEncoder(HFVisionEncoder(CLIP, hidden_layers=(-1,)), targets=targets, rank=1)
        return sorted(name.removeprefix("encoder.").removesuffix(".lora_A") for name, _ in made.named_modules() if name.endswith(".lora_A"))

    assert adapted("self_attn.q_proj") == [f"layers.{index}.self_attn.q_proj" for index in range(4)]
    assert adapted("layers.3.mlp.fc1") == ["layers.3.mlp.fc1"]
    assert adapted("layers.[23].*.[kv]_proj") == [f"layers.{index}.self_attn.{side}_proj" for index in (2, 3) for side in "kv"]


def test_only_the_adapters_dropout_follows_the_mode() -> None:
    encoder = TimmEncoder("resnet18", levels=[1], options={"layers": [1, 1, 1, 1], "channels": [8, 16, 16, 16]})
    encoder.added = nn.Sequential(nn.BatchNorm2d(16), nn.Conv2d(16, 16, 1))  # it has no linear layer of its own

    class Mixed(VisionEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.bands, self.channels, self.strides = 3, (8,), (4,)
            self.patch, self.norm, self.mix = nn.Conv2d(3, 8, 4, 4), nn.BatchNorm2d(8), nn.Linear(8, 8)

        def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
            return [self.mix(self.norm(self.patch(images)).movedim(1, -1)).movedim(-1, 1)]

    mixed = LoRAEncoder(Mixed(), targets=["mix"], dropout=0.5)
    assert mixed.training
    assert not mixed.encoder.norm.training
    mean = mixed.encoder.norm.running_mean.clone()
    with torch.no_grad():
        mixed.encoder.mix.lora_B.default.weight.normal_()
        assert not same(mixed(IMAGES), mixed(IMAGES)), "dropout of the adapter"
        mixed.eval()
        assert same(mixed(IMAGES), mixed(IMAGES))
    assert torch.equal(mixed.encoder.norm.running_mean, mean)
    with pytest.raises(ValueError, match="it has none: choose another encoder"):
        LoRAEncoder(TimmEncoder("resnet18", options={"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}), targets=["fc"])


def test_a_bfloat16_encoder_keeps_float32_adapters() -> None:
    encoder = HFVisionEncoder(CLIP, hidden_layers=(-1,)).bfloat16()
    adapted = LoRAEncoder(encoder, targets=["fc1"], rank=2)
    assert {parameter.dtype for parameter in adapted.parameters() if parameter.requires_grad} == {torch.float32}
    adapted(IMAGES)[0].float().square().sum().backward()
    assert adapted.encoder.layers[0].mlp.fc1.lora_B.default.weight.grad is not None


def test_what_cannot_be_adapted_is_refused() -> None:
    def clip() -> HFVisionEncoder:
        return HFVisionEncoder(CLIP, hidden_layers=(-2,))

    with pytest.raises(ValueError, match=r"'q_prj' matches no linear layer of HFVisionEncoder; near it: q_proj.*end with .*k_proj.*fc2"):
        LoRAEncoder(clip(), targets=["v_proj", "q_prj"])
    with pytest.raises(ValueError, match=r"targets: found none, expected .*q_proj"):
        LoRAEncoder(clip(), targets=[])

    class Reader(VisionEncoder):
        """Attention that reads the weights of its output layer, as torch's own does, and a layer that it does not use."""

        def __init__(self) -> None:
            super().__init__()
            self.bands, self.channels, self.strides = 3, (8,), (8,)
            self.patch, self.attend, self.spare = nn.Conv2d(3, 8, 8, 8), nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 8)

        def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
            cells = self.patch(images)
            tokens = cells.flatten(2).transpose(1, 2)
            return [self.attend(tokens, tokens, tokens)[0].transpose(1, 2).view_as(cells)]

    for target in ("out_proj", "spare"):
        with pytest.raises(ValueError, match=rf"no map of Reader depends on an adapter in .*{target}"):
            LoRAEncoder(Reader(), targets=[target])
