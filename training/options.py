"""The options of the command line: what each is called, takes and is for."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from weir.training.data import DATA_SETS, PAIR_SETS, TEXT_SETS
from weir.training.data.series import SERIES_SETS
from weir.training.device import DeviceName
from weir.training.recipes import RECIPES

LEARNING = "How to learn"
PICTURES = "Pictures of a folder"
SEQUENCES = "Sequences"
PAIRS = "Sequence to sequence"
SERIES = "Series"

Recipe: TypeAlias = Annotated[str, typer.Argument(help=f"One of: {', '.join(RECIPES)}.")]
Data: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|PATH",
        help=f"Pictures: {', '.join(DATA_SETS)}, or a folder or tar file with a folder of images for each class. "
        f"Texts: {', '.join(TEXT_SETS)}, or a file of LABEL<TAB>text, of token/TAG, or CoNLL-U. "
        f"Pairs: {', '.join(PAIR_SETS)}, or a file of source<TAB>target, or of sources beside --target-data. "
        f"Series: {', '.join(SERIES_SETS)}, or a CSV file with a header. "
        "Without it: the first that --list shows.",
    ),
]
Out: TypeAlias = Annotated[
    Path | None, typer.Option(help="The run directory; without it: runs/RECIPE-DATA.")
]
Device: TypeAlias = Annotated[DeviceName, typer.Option(help="auto takes CUDA where it is.")]
Resume: TypeAlias = Annotated[
    bool, typer.Option("--resume", help="Go on where the run in --out was interrupted.")
]
Overwrite: TypeAlias = Annotated[
    bool, typer.Option("--overwrite", help="Replace the run in --out.")
]

Epochs: TypeAlias = Annotated[int | None, typer.Option(rich_help_panel=LEARNING)]
BatchSize: TypeAlias = Annotated[int | None, typer.Option(rich_help_panel=LEARNING)]
LearningRate: TypeAlias = Annotated[
    float | None, typer.Option(help="At its peak.", rich_help_panel=LEARNING)
]
Seed: TypeAlias = Annotated[
    int | None,
    typer.Option(help="Decides weights, order and distortions.", rich_help_panel=LEARNING),
]

Height: TypeAlias = Annotated[int | None, typer.Option(rich_help_panel=PICTURES)]
Width: TypeAlias = Annotated[int | None, typer.Option(rich_help_panel=PICTURES)]
Channels: TypeAlias = Annotated[
    int | None, typer.Option(help="1 grey, 3 colour.", rich_help_panel=PICTURES)
]
ShortSide: TypeAlias = Annotated[
    int | None,
    typer.Option(
        help="Resize in proportion to this and cut the middle out; without it: stretch.",
        rich_help_panel=PICTURES,
    ),
]

Cell: TypeAlias = Annotated[
    str | None,
    typer.Option(help="rnn, gru, lstm or tdnn; of pairs, gru or lstm.", rich_help_panel=SEQUENCES),
]
Hidden: TypeAlias = Annotated[
    int | None, typer.Option(help="Units of a layer.", rich_help_panel=SEQUENCES)
]
Layers: TypeAlias = Annotated[
    int | None, typer.Option(help="Of pairs, the encoder's.", rich_help_panel=SEQUENCES)
]
Pool: TypeAlias = Annotated[
    str | None,
    typer.Option(help="Classify by the last state, or by the mean.", rich_help_panel=SEQUENCES),
]
TruncateSteps: TypeAlias = Annotated[
    int | None,
    typer.Option(
        help="Through how many steps the gradient flows at most.", rich_help_panel=SEQUENCES
    ),
]
Column: TypeAlias = Annotated[
    str | None,
    typer.Option(help="Of CoNLL-U: upos, xpos, deprel or feats:NAME.", rich_help_panel=SEQUENCES),
]
Dev: TypeAlias = Annotated[
    Path | None,
    typer.Option(help="A file to choose the best epoch by.", rich_help_panel=SEQUENCES),
]
Test: TypeAlias = Annotated[
    Path | None,
    typer.Option(help="A file to test on; without it: --dev.", rich_help_panel=SEQUENCES),
]
Quick: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--quick", help="Fewer rows, a smaller network, a minute.", rich_help_panel=SEQUENCES
    ),
]
LogGradients: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--log-gradients",
        help="Draw how far back in time RNN, GRU and LSTM learn on these data.",
        rich_help_panel=SEQUENCES,
    ),
]

TargetData: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="The targets of --data, line by line; without it: --data has them after a tab.",
        rich_help_panel=PAIRS,
    ),
]
DevTarget: TypeAlias = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Likewise of --dev.", rich_help_panel=PAIRS),
]
TestTarget: TypeAlias = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Likewise of --test.", rich_help_panel=PAIRS),
]
WithStress: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--with-stress", help="Phonemes of cmudict-pronounce keep it.", rich_help_panel=PAIRS
    ),
]
SourceLanguage: TypeAlias = Annotated[
    str | None,
    typer.Option(help="Of multi30k: de, en or fr; without it: de.", rich_help_panel=PAIRS),
]
TargetLanguage: TypeAlias = Annotated[
    str | None, typer.Option(help="Likewise; without it: en.", rich_help_panel=PAIRS)
]
TeacherForcing: TypeAlias = Annotated[
    tuple[float, float] | None,
    typer.Option(
        metavar="START END",
        help="The share of previous tokens that are the target's, not the network's own, at the run's start and end; "
        "without it: 1 1.",
        rich_help_panel=PAIRS,
    ),
]
Beam: TypeAlias = Annotated[
    int | None,
    typer.Option(
        help="How many hypotheses the test searches with; 1: greedily only.", rich_help_panel=PAIRS
    ),
]
NoAttention: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--no-attention",
        help="The decoder sees the encoder's last state only.",
        rich_help_panel=PAIRS,
    ),
]

Value: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="COLUMN", help="Of a CSV file: what is forecast.", rich_help_panel=SERIES),
]
Exogenous: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="COLUMN,…", help="Columns that it may depend on.", rich_help_panel=SERIES),
]
Lags: TypeAlias = Annotated[
    int | None,
    typer.Option(help="How many of the last values are read.", rich_help_panel=SERIES),
]
ExogenousLags: TypeAlias = Annotated[
    int | None,
    typer.Option(
        help="Likewise of the other columns; without it: as many.", rich_help_panel=SERIES
    ),
]
Horizon: TypeAlias = Annotated[
    int | None, typer.Option(help="How many steps are forecast.", rich_help_panel=SERIES)
]
