import io
import warnings

import numpy as np
import pytest
import torch
from fastai.vision.core import PILImage, TensorImage
from helpers import write_folder
from PIL import Image, ImageOps

from s11_fastai import load_images
from s11_fastai.errors import S11Error
from s11_fastai.sources import folder, picture
from s11_fastai.sources.picture import FORMATS, read_picture

SHAPE = (32, 32)


@pytest.fixture
def pixels(rng) -> np.ndarray:
    return rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_a_picture_is_the_same_in_whatever_it_is_given(pixels, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png(pixels))
    channels_first = torch.from_numpy(pixels).permute(2, 0, 1)
    opaque = np.dstack([pixels, np.full(SHAPE, 255, np.uint8)])
    with path.open("rb") as file:
        given = [
            path,
            str(path),
            file,
            png(pixels),
            bytearray(png(pixels)),
            io.BytesIO(png(pixels)),
        ]
        given += [Image.open(path), PILImage.create(path), pixels, opaque, pixels.astype(int)]
        given += [pixels.astype(np.int16), torch.from_numpy(pixels.astype(np.int16))]
        given += [pixels / 255, (pixels / 255).astype(np.float32), pixels.astype(np.uint16) * 256]
        given += [channels_first, TensorImage(channels_first), channels_first.float() / 255]
        for item in given:
            np.testing.assert_array_equal(read_picture(item, SHAPE), pixels, str(type(item)))


def test_one_channel_is_grey(pixels):
    grey = pixels[..., :1]
    tensor = torch.from_numpy(grey).permute(2, 0, 1)
    for item in (grey, grey[..., 0], tensor, tensor[0], (tensor / 255).requires_grad_()):
        np.testing.assert_array_equal(read_picture(item, SHAPE), grey.repeat(3, axis=2))


def test_a_tensor_may_have_its_channels_last(pixels):
    assert pixels.ndim == 3
    given = torch.from_numpy(pixels)
    for tensor in (given, given.permute(2, 0, 1)):
        assert (read_picture(tensor, pixels.shape[:2]) == pixels).all()


def of_mode(mode: str, grey: np.ndarray) -> Image.Image:
    if mode in ("I;16", "I;16B"):
        return Image.frombytes(mode, SHAPE, grey.astype("<u2" if mode == "I;16" else ">u2") * 257)
    if mode == "I":
        return Image.fromarray(grey.astype(np.int32) * 257)
    if mode == "F":
        return Image.fromarray(grey.astype(np.float32) / 255)
    image = Image.fromarray(grey).convert(mode)
    if mode == "P":
        image.info["transparency"] = bytes(range(256))
    elif mode in ("LA", "RGBA"):
        image.putalpha(Image.fromarray(grey // 2))
    return image


@pytest.mark.parametrize(
    "mode", ["L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I;16B", "I", "F"]
)
def test_every_mode_becomes_the_same_rgb(mode):
    grey = np.arange(1024, dtype=np.uint8).reshape(SHAPE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read_picture(of_mode(mode, grey), SHAPE)
    np.testing.assert_array_equal(found, grey[..., None].repeat(3, axis=2))


def test_a_camera_held_upright_gives_an_upright_picture(pixels, tmp_path):
    for orientation in range(1, 9):
        image = Image.fromarray(pixels)
        exif = image.getexif()
        exif[0x0112] = orientation
        path = tmp_path / f"{orientation}.png"
        image.save(path, exif=exif)
        upright = np.asarray(ImageOps.exif_transpose(Image.open(path)))
        assert np.array_equal(upright, pixels) == (orientation == 1)
        for item in (path, Image.open(path), PILImage.create(path)):
            np.testing.assert_array_equal(read_picture(item, SHAPE), upright)
    image.save(path, exif=b"Exif\0\0 nonsense")  # tells nothing, and is no fault of the pixels
    np.testing.assert_array_equal(read_picture(path, SHAPE), pixels)


def test_another_shape_is_cut_to_its_middle_and_resized_antialiased():
    stripes = np.zeros((128, 400, 3), np.uint8)
    stripes[:, np.isin(np.arange(400) % 4, (1, 2))] = 255  # grey from afar; the nearest is white
    stripes[:, :136] = stripes[:, 264:] = 7
    small = read_picture(stripes, SHAPE)
    assert small.shape == (32, 32, 3)
    assert (abs(small.astype(int) - 127) < 40).all()
    assert read_picture(stripes, (20, 30)).shape == (20, 30, 3)
    assert read_picture(np.zeros((1, 5000), np.uint8), SHAPE).shape == (32, 32, 3)


def test_of_several_frames_the_first_counts(tmp_path):
    frames = [Image.new("RGB", SHAPE, colour) for colour in ("red", "blue")]
    for name in ("a.gif", "a.webp", "a.png", "a.tif"):
        lossless = {"lossless": True} if name == "a.webp" else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **lossless)
        assert (read_picture(tmp_path / name, SHAPE) == (255, 0, 0)).all()


def kinds_of_file(top, pixels):
    """A file of each format and of each odd kind, as a training image and by itself."""
    folder, image = top / "train" / "cat", Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = 6
    for form in FORMATS:
        image.save(folder / f"x.{form.lower()}", exif=exif)
    deep = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    deep.save(folder / "x16.png")
    deep.save(folder / "x16.tif")
    palette = image.convert("P")
    palette.save(folder / "p.png", transparency=bytes(range(256)))
    image.convert("CMYK").save(folder / "c.jpg")
    image.convert("LA").save(folder / "la.png")
    image.save(folder / "named.png", "WEBP")
    return sorted(path for path in folder.iterdir() if not path.name[0].isdigit())


def test_training_reads_every_kind_of_file_as_predicting_does(tmp_path, rng, pixels):
    files = kinds_of_file(write_folder(tmp_path / "pets", rng), pixels)
    assert len(files) == 12
    for path, trained in zip(files, load_images(tmp_path / "pets").train.images[6:], strict=False):
        with Image.open(path) as image:
            for item in (path, path.read_bytes(), image):
                np.testing.assert_array_equal(read_picture(item, SHAPE), trained, path.name)


def closed(path) -> Image.Image:
    with Image.open(path) as image:
        return image


def test_what_is_no_picture_is_one_plain_error(tmp_path, pixels, monkeypatch):
    whole = tmp_path / "whole.png"
    whole.write_bytes(png(pixels))
    (tmp_path / "cut.png").write_bytes(png(pixels)[:900])
    (tmp_path / "text.png").write_text("text")
    cut = Image.open(tmp_path / "cut.png")
    said = {
        "nowhere.png is no picture .*No such file.*: look at the path": tmp_path / "nowhere.png",
        "is no picture .*Is a directory": tmp_path,
        "cut.png is no picture .*truncated.*: give another copy of it, as PNG or JPEG": tmp_path
        / "cut.png",
        "cut.png is no picture": cut,
        "text.png is no picture .*none of PNG, JPEG.*: give another copy": tmp_path / "text.png",
        "whole.png is no picture": closed(whole),
        "of 4 bytes is no picture .*none of PNG, JPEG.*: give another copy": b"text",
        "of 0 bytes is no picture": b"",
        r"\[1, 2\] is no picture .*type list": [1, 2],
        "None is no picture .*: give a path, bytes": None,
        "True is no picture": True,
        "1.5 is no picture": 1.5,
        r"its shape is \(3, 32, 32\)": pixels.transpose(2, 0, 1),
        r"its shape is \(32, 3, 32\)": torch.from_numpy(pixels).permute(0, 2, 1),
        r"its shape is \(0, 4\)": np.zeros((0, 4), np.uint8),
        r"its shape is \(1, 3, 32, 32\)": torch.zeros(1, 3, 32, 32),
        "floats must lie in 0 to 1, not from -0.5": np.full((4, 4), -0.5),
        "floats must lie in 0 to 1, not from nan": np.full((4, 4), np.nan),
        "floats must lie in 0 to 1, not from 0 to 255": pixels.astype(float),
        "in 0 to 65535, not from -1": np.full((4, 4), -1),
        "holds bool, not numbers": np.zeros((4, 4), bool),
        "holds <U1, not numbers": np.full((4, 4), "a"),
    }
    for words, item in said.items():
        with pytest.raises(S11Error, match=words) as error:
            read_picture(item, SHAPE)
        assert "\n" not in str(error.value)
    cut.close()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 600)  # up to twice that, Pillow only warns
    assert read_picture(whole, SHAPE).shape == (32, 32, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(S11Error, match="exceeds limit of 1000 pixels"):
        read_picture(whole, SHAPE)


def test_a_lack_of_memory_is_no_fault_of_a_picture(tmp_path, pixels, monkeypatch):
    def no_memory(_):
        raise MemoryError

    monkeypatch.setattr(picture, "rgb_image", no_memory)
    monkeypatch.setattr(folder, "rgb_image", no_memory)
    with pytest.raises(MemoryError):
        read_picture(png(pixels), SHAPE)
    with pytest.raises(MemoryError):
        folder.decode_chunk([("a.png", png(pixels))], 32)


def test_pixels_are_not_copied_on_their_way(pixels, monkeypatch):
    """A small file can hold hundreds of millions."""
    monkeypatch.setattr(Image.Image, "copy", lambda _: pytest.fail("a copy"))
    np.testing.assert_array_equal(read_picture(png(pixels), SHAPE), pixels)
