"""How training images look: light, contrast, sharpness, noise and missing bands, changed on the device with kornia.

Only what leaves every word about an image true: no hue, which would turn a red roof into a green one, and no geometry (:mod:`geopix.data.augment`).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


class Appearance:
    """Random changes of a batch of images with values in 0..1, drawn for each image by itself.

    Args:
        brightness: greatest share by which values are raised or lowered.
        contrast: greatest share by which values are spread or drawn together.
        gamma: greatest change of the exponent, in both directions.
        blur: share of the images that are blurred, by a Gaussian of 0.3 to 1.5 pixels.
        noise: share of the images that get Gaussian noise of ``noise_std``.
        noise_std: standard deviation of the noise.
        band_dropout: share of the images that lose one band, set to 0. For images of more than three bands; colours are told by three.

    Raises:
        ValueError: for values outside 0..1.
    """

    def __init__(
        self,
        brightness: float = 0.15,
        contrast: float = 0.15,
        gamma: float = 0.1,
        blur: float = 0.1,
        noise: float = 0.2,
        noise_std: float = 0.02,
        band_dropout: float = 0.0,
    ) -> None:
        given = {
            "brightness": brightness, "contrast": contrast, "gamma": gamma, "blur": blur, "noise": noise, "noise_std": noise_std, "band_dropout": band_dropout,
        }  # fmt: skip
        if wrong := {name: value for name, value in given.items() if not 0 <= value <= 1}:
            raise ValueError(f"changes of appearance are shares from 0 to 1; found {wrong}.")
        import kornia.augmentation as K  # takes a second, which a command that only prints its help need not wait

        self.steps = torch.nn.Sequential(
            K.RandomBrightness((1 - brightness, 1 + brightness), p=1.0 if brightness else 0.0),
            K.RandomContrast((1 - contrast, 1 + contrast), p=1.0 if contrast else 0.0),
            K.RandomGamma((1 - gamma, 1 + gamma), p=1.0 if gamma else 0.0),
            K.RandomGaussianBlur(7, (0.3, 1.5), p=blur),
            K.RandomGaussianNoise(0.0, noise_std, p=noise),
            K.RandomChannelDropout(1, p=band_dropout),
        )

    def __call__(self, images: Float[Tensor, "b c h w"], seed: int) -> Float[Tensor, "b c h w"]:
        """The changed images, within 0..1.

        Args:
            seed: the same seed gives the same changes, whatever was drawn before; the global state of chance stays as it was.
        """
        devices = [images.device] if images.device.type != "cpu" else []
        with torch.random.fork_rng(devices, device_type=images.device.type), torch.no_grad():
            torch.manual_seed(seed)
            changed: Tensor = self.steps(images)
        return changed.clamp(0, 1)
