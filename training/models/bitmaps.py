"""The ten fixed output codes of LeNet-5: each class is a bitmap of its digit, 7 wide and 12 high.

The paper has such bitmaps for printable ASCII (figure 3); these were drawn for Weir. Similar digits
have similar codes, as in the paper: a language model over the outputs can then use the distances.
"""

import torch
from torch import Tensor

from weir.training.errors import ModelError

DIGITS_0_TO_4 = """
..###..  ...#...  .####..  .####..  ....##.
.##.##.  ..##...  ##..##.  ##..##.  ...###.
##...##  .###...  .....##  .....##  ...###.
##...##  ...#...  .....##  .....##  ..#.##.
##...##  ...#...  .....##  ....##.  ..#.##.
##...##  ...#...  ....##.  ..###..  .#..##.
##...##  ...#...  ...##..  ....##.  .#..##.
##...##  ...#...  ..##...  .....##  #######
##...##  ...#...  .##....  .....##  ....##.
##...##  ...#...  ##.....  .....##  ....##.
.##.##.  ...#...  ##.....  ##..##.  ....##.
..###..  .#####.  #######  .####..  ....##.
"""
DIGITS_5_TO_9 = """
#######  ..####.  #######  ..###..  .####..
##.....  .##....  .....##  .##.##.  ##..##.
##.....  ##.....  .....##  ##...##  ##...##
##.....  ##.....  ....##.  ##...##  ##...##
#####..  ##.....  ....##.  .##.##.  ##...##
....##.  #####..  ...##..  ..###..  .##..##
.....##  ##..##.  ...##..  .##.##.  ..#####
.....##  ##...##  ..##...  ##...##  .....##
.....##  ##...##  ..##...  ##...##  .....##
.....##  ##...##  ..##...  ##...##  .....##
##..##.  .##..##  ..##...  .##.##.  ....##.
.####..  ..####.  ..##...  ..###..  .####..
"""


def class_codes(classes: int) -> Tensor:
    """The codes of the first classes: (classes, 84) of +1 (ink) and -1, row by row.

    Raises:
        ModelError: fewer than 2 or more than 10 classes.
    """
    drawn = [picture for sheet in (DIGITS_0_TO_4, DIGITS_5_TO_9) for picture in _cut(sheet)]
    if not 2 <= classes <= len(drawn):
        raise ModelError(f"lenet5-1998 has codes for 2 to {len(drawn)} classes, got {classes}")
    return torch.tensor(
        [[1.0 if pixel == "#" else -1.0 for pixel in picture] for picture in drawn[:classes]]
    )


def _cut(sheet: str) -> list[str]:
    """The bitmaps of one sheet, each as a string of its 84 pixels."""
    rows = [line.split() for line in sheet.strip().splitlines()]
    return ["".join(row[column] for row in rows) for column in range(len(rows[0]))]
