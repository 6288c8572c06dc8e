"""ONNX files of small graphs, written as text, as foreign exporters write them."""

from pathlib import Path

import onnx
from onnx import parser

HEADER = '<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 1], producer_name: "other">'

SCALE = """g (float[N, 4] x) => (float[N, 4] y) <float two = {2.0}> { y = Mul(x, two) }"""

# A row minus the mean of all rows: no batch axis, whatever its name.
CENTRE = """
g (float[batch, 4] x) => (float[batch, 4] y) {
  mean = ReduceMean <axes = [0], keepdims = 1> (x)
  y = Sub(x, mean)
}"""

# Each row's sum along time, up to its length.
MASKED_SUM = """
g (float[rows, steps] frames, int64[rows] lengths) => (float[rows] total, float[rows, steps] own)
<int64 zero = {0}, int64 one = {1}, int64[1] last = {1}> {
  shape = Shape <start = 1, end = 2> (frames)
  width = Squeeze(shape)
  place = Range(zero, width, one)
  column = Unsqueeze(lengths, last)
  is_own = Less(place, column)
  mask = Cast <to = 1> (is_own)
  own = Mul(frames, mask)
  total = ReduceSum <keepdims = 0> (own, last)
}"""

# The sum of all entries, padding included: wrong for padded rows.
PLAIN_MEAN = """
g (float[rows, steps] frames, int64[rows] lengths) => (float[rows] mean) {
  count = Cast <to = 1> (lengths)
  all = ReduceMean <axes = [1], keepdims = 0> (frames)
  zero = Sub(count, count)
  mean = Add(all, zero)
}"""

EMBEDDING = """
g (int64[N, T] ids) => (float[N, T, 2] vectors)
<float[3, 2] table = {0.0, 1.0, 2.0, 3.0, 4.0, 5.0}> { vectors = Gather(table, ids) }"""

ZIP_MAP = """
g (float[N, 3] x) => (seq(map(string, float)) scores) {
  p = Softmax(x)
  scores = ai.onnx.ml.ZipMap <classlabels_strings = ["cat", "dog", "owl"]> (p)
}"""

# Each row's sum where the mask is 1, plus its place: the graph takes rows of at most 5 entries.
PLACES = """
g (int64[N, T] input_ids, int64[N, T] attention_mask) => (float[N, 2] logits)
<float[4, 2] table = {0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0},
 float[5] places = {0.0, 1.0, 2.0, 3.0, 4.0},
 int64 zero = {0}, int64 one = {1}, int64[1] last = {1}, int64[1] ends = {2}> {
  shape = Shape <start = 1, end = 2> (input_ids)
  width = Squeeze(shape)
  range = Range(zero, width, one)
  place = Gather(places, range)
  column = Unsqueeze(place, last)
  word = Gather(table, input_ids)
  state = Add(word, column)
  mask = Cast <to = 1> (attention_mask)
  wide = Unsqueeze(mask, ends)
  own = Mul(state, wide)
  logits = ReduceSum <keepdims = 0> (own, last)
}"""

# Scores of three classes: the mean of each channel.
PICTURES = """
g (float[N, 3, 4, 6] data) => (float[N, 3] scores) {
  scores = ReduceMean <axes = [2, 3], keepdims = 0> (data)
}"""


def model(text: str, header: str = HEADER) -> onnx.ModelProto:
    return parser.parse_model(f"{header} {text}")


def write(folder: Path, text: str, name: str = "net.onnx", header: str = HEADER) -> Path:
    """A file of the graph in a folder."""
    path = folder / name
    path.write_bytes(model(text, header).SerializeToString())
    return path
