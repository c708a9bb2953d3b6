"""What makes a small, damaged picture of a large, clean one: blur, halving, noise, JPEG, in this order.

Training draws from one mix (`training_mix`). Those of the test (`UNSEEN`) are of other kinds or beyond its ranges,
alone and combined: defocus instead of Gaussian blur, shot noise instead of Gaussian noise, coarser JPEG.
"""

from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image
from scipy import ndimage

SCALE = 2
"""Large over small, each way."""
REACH = 8
"""Pixels of the large picture that the strongest blur of training and the halving look to each side."""


@dataclass(frozen=True)
class Degradation:
    """One way to degrade; what is None is left out."""

    gauss: float | None = None
    """Standard deviation of a Gaussian blur, in pixels of the large picture."""
    defocus: float | None = None
    """Radius of the disc that a point becomes out of focus, in pixels of the large picture."""
    noise: float | None = None
    """Standard deviation of Gaussian noise, in grey levels of 255."""
    shot: float | None = None
    """Photons that white stands for in Poisson noise: fewer are noisier."""
    jpeg: int | None = None
    """Quality of a JPEG file, 1 to 95."""

    def __call__(self, picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(height, width) uint8, both even, to half of each; the noise is drawn from `rng`."""
        large = picture.astype(np.float32)
        if self.gauss is not None:
            large = ndimage.gaussian_filter(large, self.gauss, truncate=3)
        if self.defocus is not None:
            large = ndimage.convolve(large, disc(self.defocus), mode="nearest")
        small = halved(large)
        if self.noise is not None:
            small = small + rng.normal(0, self.noise, small.shape)
        if self.shot is not None:
            small = rng.poisson(small.clip(0, 255) * (self.shot / 255)) * (255 / self.shot)
        small = np.rint(small).clip(0, 255).astype(np.uint8)
        return small if self.jpeg is None else compressed(small, self.jpeg)


def halved(picture: np.ndarray) -> np.ndarray:
    """Half the size by an anti-aliased cubic (a = -1/2), float32."""
    height, width = (size // SCALE for size in picture.shape)
    return np.asarray(Image.fromarray(picture.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC))


def disc(radius: float) -> np.ndarray:
    """A uniform disc of sum 1, its rim weighted by how much of each pixel it covers (8 x 8 samples a pixel)."""
    reach = int(np.ceil(radius))
    samples = (np.arange(8 * (2 * reach + 1)) + 0.5) / 8 - reach - 0.5
    inside = (samples[:, None] ** 2 + samples**2 <= radius**2).astype(np.float32)
    kernel = inside.reshape(2 * reach + 1, 8, 2 * reach + 1, 8).sum((1, 3))
    return kernel / kernel.sum()


def compressed(picture: np.ndarray, quality: int) -> np.ndarray:
    """What is left of a uint8 picture after a JPEG file of that quality."""
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, "jpeg", quality=quality)
    return np.asarray(Image.open(buffer))


def training_mix(rng: np.random.Generator) -> Degradation:
    """Each kind with probability one half: blur 0.2-1.2 pixels, noise 1-10 grey levels, JPEG 60-95."""
    blur, noise, jpeg = rng.random(3) < 0.5
    return Degradation(
        gauss=rng.uniform(0.2, 1.2) if blur else None,
        noise=rng.uniform(1, 10) if noise else None,
        jpeg=int(rng.integers(60, 96)) if jpeg else None,
    )


DEFOCUS, SHOT, COARSE = 2.0, 150.0, 30
UNSEEN = {
    "blur": Degradation(defocus=DEFOCUS),
    "noise": Degradation(shot=SHOT),
    "jpeg": Degradation(jpeg=COARSE),
    "blur_noise": Degradation(defocus=DEFOCUS, shot=SHOT),
    "blur_jpeg": Degradation(defocus=DEFOCUS, jpeg=COARSE),
    "noise_jpeg": Degradation(shot=SHOT, jpeg=COARSE),
    "blur_noise_jpeg": Degradation(defocus=DEFOCUS, shot=SHOT, jpeg=COARSE),
}
"""Degradations of the test, none of which training meets."""
