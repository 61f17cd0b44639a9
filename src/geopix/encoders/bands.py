"""Which bands an encoder reads, and how a first layer made for other bands is inflated to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

Inflate = Literal["repeat", "mean", "named", "zeros"]
"""How the kernels of a first layer come to other bands; see :class:`Bands`."""

_POLICIES = ("repeat", "mean", "named", "zeros")
_COLOURS = ("red", "green", "blue")


@dataclass(frozen=True)
class Bands:
    """The bands of the images, and what each of them takes from the channels that weights were made for.

    Args:
        given: how many bands, or the name of each, in the order of the data.
        inflate: the policy; "own" is the number of channels that the weights were made for.

            - ``repeat``: the kernels are summed for one band, else taken in turn and scaled by ``own / bands``. Names change nothing.
            - ``mean``: every band takes the mean kernel, scaled by ``own / bands``.
            - ``named``: bands called red, green and blue take their own kernels wherever they stand, others the mean kernel, all scaled by ``own / bands``.
            - ``zeros``: bands called red, green and blue take their own kernels as they are, others start at zero: more bands leave the result for red,
              green and blue exactly as it was.

            Means and deviations of normalisation follow the same mapping, without a scale: a band with the mean kernel, or with zeros, takes their averages.

    Attributes:
        count: how many bands.
        names: the name of each; empty when only a number was given.

    Raises:
        ValueError: for no band, a name that is given twice, an unknown policy, or a policy that needs names and has none.
    """

    given: int | Sequence[str]
    inflate: str = "repeat"
    count: int = field(init=False)
    names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        if isinstance(self.given, str):
            raise ValueError(f"bands are a number or a list of names; found the text {self.given!r}. Write [{self.given}].")
        names = () if isinstance(self.given, int) else tuple(self.given)
        count = self.given if isinstance(self.given, int) else len(names)
        if count < 1:
            raise ValueError(f"an encoder reads at least one band; found bands={self.given}.")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"each band has a name of its own; found {', '.join(twice)} more than once in {list(names)}.")
        if self.inflate not in _POLICIES:
            raise ValueError(f"inflate is one of {', '.join(_POLICIES)}; found {self.inflate!r}.")
        if self.inflate in ("named", "zeros") and not names:
            raise ValueError(f"inflate={self.inflate!r} needs the names of the bands; found bands={count}. Give a list, such as [red, green, blue, nir].")
        if self.inflate == "zeros" and not set(names) & set(_COLOURS):
            raise ValueError(f"inflate='zeros' leaves a layer of zeros unless a band is called red, green or blue; found {list(names)}. Choose mean or repeat.")
        object.__setattr__(self, "count", count)
        object.__setattr__(self, "names", names)

    def sources(self, own: int) -> list[int | None]:
        """The channel that each band takes, of ``own`` that the weights were made for; None for the mean of all.

        Raises:
            ValueError: when bands are matched by name with weights that were not made for red, green and blue.
        """
        if self.inflate == "mean" or (self.inflate == "repeat" and self.count == 1 != own):
            return [None] * self.count
        if self.inflate == "repeat":
            return [band % own for band in range(self.count)]
        if own != len(_COLOURS):
            raise ValueError(f"inflate={self.inflate!r} matches red, green and blue, but the weights were made for {own} channels. Choose mean or repeat.")
        return [_COLOURS.index(name) if name in _COLOURS else None for name in self.names]

    def change(self, own: int) -> bool:
        """Whether a layer made for ``own`` channels must change at all."""
        return self.sources(own) != list(range(own))

    def kernels(self, weight: Float[Tensor, "out own *kernel"]) -> Float[Tensor, "out count *kernel"]:
        """Kernels of a first layer for these bands, from kernels for the channels that it was made for."""
        own, old = weight.shape[1], weight.detach()
        scale = 1.0 if self.inflate == "zeros" else own / self.count
        other = torch.zeros_like(old[:, 0]) if self.inflate == "zeros" else old.mean(1)
        return torch.stack([other if source is None else old[:, source] for source in self.sources(own)], 1) * scale

    def inflate_convolution(self, convolution: nn.Conv2d) -> None:
        """Gives a first convolution, in place, the kernels for these bands; leaves it as it is where they do not differ.

        Raises:
            ValueError: when it is a grouped convolution, whose kernels do not see every channel.
        """
        if not self.change(convolution.in_channels):
            return
        if convolution.groups != 1:
            raise ValueError(f"a first convolution in {convolution.groups} groups cannot be inflated to other bands: {convolution}.")
        convolution.weight = nn.Parameter(self.kernels(convolution.weight), requires_grad=convolution.weight.requires_grad)
        convolution.in_channels = self.count

    def values(self, what: str, given: Sequence[float] | None, own: Sequence[float]) -> Float[Tensor, "count 1 1"]:
        """One number per band for normalisation: those given, else ``own`` by the same mapping as the kernels.

        Args:
            what: ``mean`` or ``std``, for the message.
            own: those of the channels that the weights were made for.

        Raises:
            ValueError: when another number of values than of bands is given.
        """
        if given is None:
            given = [sum(own) / len(own) if source is None else own[source] for source in self.sources(len(own))]
        if len(given) != self.count:
            raise ValueError(f"{what} needs one number per band, {self.count}; found {list(given)}.")
        return torch.tensor([float(value) for value in given]).view(-1, 1, 1)


def normalise(images: Float[Tensor, "b c h w"], mean: Float[Tensor, "n 1 1"], std: Float[Tensor, "n 1 1"]) -> Float[Tensor, "b c h w"]:
    """Images in 0..1 as the weights expect them, in the type of ``mean``.

    Raises:
        ValueError: when the number of bands is not the encoder's.
    """
    bands = images.shape[1]
    if bands != len(mean):
        raise ValueError(f"the encoder reads {len(mean)} bands but the images have {bands}; set bands={bands} or change the data.")
    return ((images - mean.to(images)) / std.to(images)).to(mean.dtype)
