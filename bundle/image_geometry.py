"""Picture geometry of a contract's `preprocessing`: resize and crop. Pure."""

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
