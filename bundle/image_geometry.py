"""Picture geometry of a contract's `preprocessing`: orientation, resize and crop. Pure."""

from PIL import Image

Size = tuple[int, int]
"""Width and height, in pixels."""


def short_side_size(size: Size, short_side: int) -> Size:
    """The size in proportion whose shorter side is `short_side` pixels."""
    width, height = size
    shortest = min(size)
    return round(width * short_side / shortest), round(height * short_side / shortest)


def centre_crop(size: Size, crop: Size) -> tuple[int, int, int, int]:
    """The box of a crop around the centre: left, top, right and bottom, in pixels."""
    left, top = (size[0] - crop[0]) // 2, (size[1] - crop[1]) // 2
    return left, top, left + crop[0], top + crop[1]


_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """Turn a picture upright by its EXIF orientation; a value that does not exist turns nothing."""
    turn = _UPRIGHT.get(orientation)
    return image if turn is None else image.transpose(turn)
