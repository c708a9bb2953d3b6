"""Pictures, degradations, PSNR and tiles of the recipe annealed_sr, each against its definition."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from todm.errors import TodmError
from todm.recipes.annealed_sr import pictures as module
from todm.recipes.annealed_sr.degrade import UNSEEN, Degradation, compressed, disc, halved, training_mix
from todm.recipes.annealed_sr.pictures import load_pictures, luminance
from todm.recipes.annealed_sr.psnr import grey_levels, psnr
from todm.recipes.annealed_sr.tiles import MARGIN, TILE, in_tiles

GOLDEN = np.load(Path(__file__).parent.parent / "data" / "psnr.npz")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A picture in each set, with an odd number of rows; nothing else is found."""
    monkeypatch.delenv("TODM_DATA", raising=False)
    rng = np.random.default_rng(0)
    for name in ("T91/t1", "Set5/img_001", "Set14/img_001"):
        path = tmp_path / "sr" / f"{name}.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (21, 30, 3), dtype=np.uint8)).save(path)
    return tmp_path / "sr"


def smooth(height: int, width: int) -> np.ndarray:
    """A uint8 picture with more than noise in it."""
    noise = np.random.default_rng(3).normal(size=(height, width))
    picture = ndimage.gaussian_filter(noise, 2)
    return np.rint(128 + 100 * picture / np.abs(picture).max()).astype(np.uint8)


# -- pictures -------------------------------------------------------------------------------------------------


def test_luminance_is_that_of_bt_601():
    corners = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    assert luminance(corners).tolist() == [[16, 235, 81, 145, 41]]


def test_pictures_come_from_a_folder_or_the_environment(folder, tmp_path, monkeypatch):
    given = load_pictures(folder, tmp_path / "cache")
    monkeypatch.setenv("TODM_DATA", str(tmp_path))
    found = load_pictures(None, tmp_path / "cache")
    assert given.source == found.source == "3 local pictures of T91, Set5 and Set14"
    assert {name: list(each) for name, each in found.sets.items()} == {
        "T91": ["T91/t1"], "Set5": ["Set5/img_001"], "Set14": ["Set14/img_001"],
    }  # fmt: skip
    rgb = np.asarray(Image.open(folder / "T91" / "t1.png"))
    assert np.array_equal(found.sets["T91"]["T91/t1"], luminance(rgb[:20]))
    assert not (tmp_path / "cache").exists()


def test_a_folder_without_pictures_or_with_a_broken_one_is_named(folder, tmp_path):
    with pytest.raises(TodmError, match=r"elsewhere has no PNG files of T91: it needs"):
        load_pictures(tmp_path / "elsewhere", tmp_path)
    (folder / "Set5" / "img_001.png").write_bytes(b"no picture")
    with pytest.raises(TodmError, match=r"img_001.png is not a readable picture"):
        load_pictures(folder, tmp_path)


def test_a_download_is_kept_only_if_its_pixels_are_the_pinned_ones(folder, tmp_path, monkeypatch):
    """The homes are two folders here, reached as URLs; the training picture is a BMP file there."""
    homes = tmp_path / "homes"
    for name, home in (
        ("T91/t1", "input_images/t1.bmp"),
        ("Set5/img_001", "data/Set5/image_SRF_4/img_001_SRF_4_HR.png"),
    ):
        (homes / home).parent.mkdir(parents=True)
        Image.open(folder / f"{name}.png").save(homes / home)
    monkeypatch.setattr(module, "T91_HOME", homes.as_uri())
    monkeypatch.setattr(module, "SETS_HOME", homes.as_uri())
    monkeypatch.setattr(module, "T91", ["t1"])
    monkeypatch.setattr(module, "SETS", {"Set5": 1})
    with pytest.raises(TodmError, match=r"are not the pinned ones; type --data FOLDER"):
        load_pictures(None, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()

    content = b""
    for name in ("Set5/img_001", "T91/t1"):
        content += f"{name} 21 30 ".encode() + np.asarray(Image.open(folder / f"{name}.png")).tobytes()
    monkeypatch.setattr(module, "CHECKSUM", hashlib.sha256(content).hexdigest())
    downloaded = load_pictures(None, tmp_path / "cache")
    (homes / "input_images" / "t1.bmp").unlink()
    again = load_pictures(None, tmp_path / "cache")
    assert downloaded.source == again.source == "2 downloaded pictures of T91, Set5 and Set14"
    assert downloaded.checksum == again.checksum == module.CHECKSUM
    with pytest.raises(TodmError, match=r"cannot download the pictures .*--data FOLDER"):
        load_pictures(None, tmp_path / "other")


# -- degradations ---------------------------------------------------------------------------------------------


def test_halving_keeps_a_constant_and_is_not_fooled_by_stripes():
    assert np.array_equal(halved(np.full((8, 12), 77, np.uint8)), np.full((4, 6), 77, np.float32))
    stripes = np.tile(np.array([0, 255], np.uint8), (8, 8))
    assert np.ptp(halved(stripes)[:, 2:-2]) < 1e-3  # taking every other pixel would give 0 or 255 everywhere


def test_a_disc_weighs_its_rim_by_what_it_covers():
    kernel = disc(2.0)
    assert kernel.shape == (5, 5)
    assert kernel.sum() == pytest.approx(1)
    assert np.array_equal(kernel, kernel.T) and np.array_equal(kernel, kernel[::-1])
    assert 1 / kernel.max() == pytest.approx(np.pi * 2**2, rel=0.02)
    assert 0 < kernel[0, 2] < kernel[2, 2] and kernel[0, 0] == 0


def test_noise_has_the_strength_it_says():
    grey, rng = np.full((400, 400), 128, np.uint8), np.random.default_rng(0)
    gaussian = Degradation(noise=8.0)(grey, rng).astype(float)
    shot = Degradation(shot=150.0)(grey, rng).astype(float)
    assert gaussian.mean() == pytest.approx(128, abs=0.15)
    assert gaussian.std() == pytest.approx(8, rel=0.02)
    assert shot.mean() == pytest.approx(128, abs=0.25)
    assert shot.std() == pytest.approx(np.sqrt(128 * 255 / 150), rel=0.02)  # Poisson: variance = mean, in photons


def test_degradations_are_made_in_order_and_drawn_from_the_generator():
    large = smooth(64, 48)
    blurred = ndimage.gaussian_filter(large.astype(np.float32), 1.0, truncate=3)
    noisy = halved(blurred) + np.random.default_rng(5).normal(0, 6.0, (32, 24))
    expected = compressed(np.rint(noisy).clip(0, 255).astype(np.uint8), 40)
    got = Degradation(gauss=1.0, noise=6.0, jpeg=40)(large, np.random.default_rng(5))
    assert got.dtype == np.uint8
    assert np.array_equal(got, expected)
    assert psnr(halved(large), got) < psnr(halved(large), Degradation(jpeg=90)(large, np.random.default_rng(5)))


def test_training_meets_none_of_the_test_degradations():
    rng = np.random.default_rng(0)
    drawn = [training_mix(rng) for _ in range(2000)]
    assert all(one.defocus is None and one.shot is None for one in drawn)
    for name, low, high in (("gauss", 0.2, 1.2), ("noise", 1, 10), ("jpeg", 60, 95)):
        values = [value for one in drawn if (value := getattr(one, name)) is not None]
        assert len(values) == pytest.approx(1000, abs=100)
        assert low <= min(values) < low + 0.1 * (high - low) and high - 0.1 * (high - low) < max(values) <= high
    for unseen in UNSEEN.values():
        assert unseen.gauss is None and unseen.noise is None
        assert unseen.defocus or unseen.shot or unseen.jpeg < 60
    assert len(set(UNSEEN.values())) == 7


# -- PSNR and tiles -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", range(len(GOLDEN["crop"])))
def test_psnr_is_the_golden_one(index):
    value = psnr(GOLDEN["image_a"], GOLDEN["image_b"], int(GOLDEN["crop"][index]))
    assert value == pytest.approx(GOLDEN["rgb_db"][index], abs=1e-12)
    assert psnr(GOLDEN["image_a"], GOLDEN["image_a"]) == GOLDEN["identical_is_inf"]


def test_psnr_of_an_error_and_back():
    black = np.zeros((6, 6), np.uint8)
    assert grey_levels(psnr(black, np.full((6, 6), 5.0))) == pytest.approx(5)
    with pytest.raises(ValueError, match="differ in shape"):
        psnr(black, black[1:])
    with pytest.raises(ValueError, match="leaves nothing"):
        psnr(black, black, border=3)


@pytest.mark.parametrize("shape", [(48, 96), (39, 130), (5, 200)])
def test_tiles_make_one_picture_again(shape):
    picture = np.random.default_rng(0).random(shape, np.float32)
    seen = []

    def doubled(tile: np.ndarray) -> np.ndarray:
        seen.append(tile.shape)
        blurred = ndimage.uniform_filter(tile, (1, 1, 2 * MARGIN + 1, 2 * MARGIN + 1), mode="constant")
        return blurred.repeat(2, 2).repeat(2, 3)

    result = in_tiles(doubled, picture)
    whole = ndimage.uniform_filter(picture, 2 * MARGIN + 1, mode="mirror").repeat(2, 0).repeat(2, 1)
    assert set(seen) == {(1, 1, TILE, TILE)}
    assert np.allclose(result, whole, atol=1e-5)
