"""An encoder of one's own: a small convolutional pyramid for any number of bands."""

from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from geopix.contracts import VisionEncoder


class HalvingEncoder(VisionEncoder):
    """Halves the image three times and gives the maps of strides 4 and 8.

    Args:
        bands: how many bands the images have.
        width: channels after the first step, a multiple of 8; each further step doubles them.
    """

    def __init__(self, *, bands: int = 3, width: int = 32) -> None:
        super().__init__()
        self.bands, self.channels, self.strides = bands, (2 * width, 4 * width), (4, 8)
        self.steps = nn.ModuleList(
            nn.Sequential(nn.Conv2d(narrow, wide, 3, stride=2, padding=1), nn.GroupNorm(8, wide), nn.GELU(), nn.Conv2d(wide, wide, 3, padding=1), nn.GELU())
            for narrow, wide in pairwise((bands, width, *self.channels))
        )

    def forward(self, images: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Maps of ``ceil(side / stride)`` cells along each side."""
        half = self.steps[0](4 * images - 2)
        fine = self.steps[1](half)
        return [fine, self.steps[2](fine)]
