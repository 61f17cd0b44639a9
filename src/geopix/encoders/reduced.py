"""Any encoder on a reduced image: read small, draw large."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from geopix.contracts import VisionEncoder


class ReducedEncoder(VisionEncoder):
    """Shows the inner encoder the image reduced by a fixed factor, so that one image is read at the size a language model can afford and drawn at its own.

    It is for the slot ``encoder`` beside a ``pixel_encoder``: LISA (arXiv 2308.00692) reads at 224 pixels what it draws at 1024, Sa2VA (arXiv 2501.04001)
    at 448. The factor is that from the inner encoder's last stride to ``stride``, and need not be whole: CLIP's patches of 14 pixels at
    ``stride: 64`` see 1024 pixels as 224. It is the same for every image, so that strides can be stated. Images are averaged down
    (bilinear, with anti-aliasing); sides that do not reduce to whole pixels are first extended at the bottom and right by their last row and column.

    Args:
        encoder: sees the reduced image.
        stride: pixels of the image, as it is given here, per cell of the last map.

    Raises:
        ValueError: when this would enlarge the image, or when another map's stride would be no whole number.
    """

    def __init__(self, encoder: VisionEncoder, *, stride: int) -> None:
        super().__init__()
        self._factor = Fraction(stride, encoder.strides[-1])
        strides = [own * self._factor for own in encoder.strides]
        if self._factor < 1 or any(each.denominator > 1 for each in strides):
            raise ValueError(
                f"stride is at least that of the encoder's last map, {encoder.strides[-1]}, and leaves whole strides to the others; found stride={stride} "
                f"for the strides {encoder.strides}, which become {', '.join(map(str, strides))}. Choose a multiple of {encoder.strides[-1]}."
            )
        self.encoder = encoder
        self.bands, self.channels = encoder.bands, encoder.channels
        self.strides = tuple(int(each) for each in strides)

    def forward(self, images: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """The inner encoder's maps of the reduced image, ``ceil(side / stride)`` cells each, finest first."""
        if self._factor == 1:
            return self.encoder(images)
        step = self._factor.numerator
        height, width = images.shape[-2:]
        whole = F.pad(images, (0, -width % step, 0, -height % step), mode="replicate")
        return self.encoder(F.interpolate(whole, self._reduced(whole.shape[-2:]), mode="bilinear", align_corners=False, antialias=True))

    def _reduced(self, sides: Sequence[int]) -> list[int]:
        return [side * self._factor.denominator // self._factor.numerator for side in sides]
