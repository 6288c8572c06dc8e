"""The ten fixed codes of LeNet-5's output: each class is a little picture of its digit, 7 wide and 12 high.

The paper draws such pictures for printable ASCII (its figure 3); these were drawn for Weir. Look-alike
digits have close codes on purpose: what reads the answers of a whole line can then tell near from far.
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
    """The codes of the first classes, (classes, 84) of +1 (ink) and -1, row by row.

    Raises:
        ModelError: there are ten codes, and more classes were asked for.
    """
    drawn = [picture for sheet in (DIGITS_0_TO_4, DIGITS_5_TO_9) for picture in _cut(sheet)]
    if not 2 <= classes <= len(drawn):
        raise ModelError(f"lenet5-1998 has codes for 2 to {len(drawn)} classes, got {classes}")
    return torch.tensor(
        [[1.0 if pixel == "#" else -1.0 for pixel in picture] for picture in drawn[:classes]]
    )


def _cut(sheet: str) -> list[str]:
    """The pictures of one sheet, each as its 84 pixels in a row."""
    rows = [line.split() for line in sheet.strip().splitlines()]
    return ["".join(row[column] for row in rows) for column in range(len(rows[0]))]
