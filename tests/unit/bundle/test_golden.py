import contextlib
import io
import pickle
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest

from weir.bundle.errors import BrokenBundle
from weir.bundle.golden import Golden, decode, encode


def archive(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


class Trap:
    """Leaves a mark when unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return (Path("unpickled").touch, ())


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.uint8).reshape(2, 3),
        np.float32(1.5),
        np.zeros((0, 4), np.int64),
        np.array([True, False]),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.ones((1,) * 32, np.float32),
    ],
    ids=["uint8", "scalar", "empty", "bool", "fortran", "32 axes"],
)
def test_round_trip(array: np.ndarray) -> None:
    golden = Golden(inputs={"a/b": np.asarray(array)}, outputs={"y": np.ones(2)})

    result = decode(encode(golden))

    np.testing.assert_array_equal(result.inputs["a/b"], array)
    assert result.inputs["a/b"].dtype == np.asarray(array).dtype
    assert list(result.outputs) == ["y"]


def test_numpy_reads_it_too(golden: Golden) -> None:
    with np.load(io.BytesIO(encode(golden)), allow_pickle=False) as loaded:
        np.testing.assert_array_equal(loaded["inputs/image"], golden.inputs["image"])


def test_same_tensors_same_bytes(golden: Golden) -> None:
    assert encode(golden) == encode(golden)


@pytest.mark.parametrize(
    "array",
    [
        np.array([{}]),
        np.array([1], ">f4"),
        np.array([1], "M8[s]"),
        np.ones(1, "f4,f4"),
    ],
    ids=["object", "big-endian", "date", "record"],
)  # fmt: skip
def test_only_numbers_are_written(array: np.ndarray) -> None:
    with pytest.raises(ValueError, match="inputs/x: expected numbers or texts, got"):
        encode(Golden(inputs={"x": array}, outputs={}))


def test_texts_come_back() -> None:
    texts = np.array([["a", "zwölf"], ["", "\U0001f600"]], object)

    read = decode(encode(Golden(inputs={"x": texts}, outputs={})))

    assert read.inputs["x"].dtype == object
    assert read.inputs["x"].tolist() == texts.tolist()


def test_too_many_texts_are_refused() -> None:
    data = encode(Golden(inputs={"x": np.full(65_537, "a")}, outputs={}))

    with pytest.raises(BrokenBundle, match="expected at most 65536 texts, got 65537"):
        decode(data)


def test_pickle_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    trap = np.empty(1, object)
    trap[0] = Trap()

    with pytest.raises(BrokenBundle, match="file of numbers"):
        decode(archive({"inputs/x.npy": npy(trap)}))
    with pytest.raises(BrokenBundle):
        decode(archive({"inputs/x.npy": pickle.dumps(Trap())}))

    assert not Path("unpickled").exists()


HEADER = npy(np.ones(4, np.float32))[:128]


def with_header(dtype: str = "'<f4'", shape: str = "(4,)") -> bytes:
    """An archive of sixteen bytes, called what the test likes."""
    header = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    size = len(header).to_bytes(2, "little")
    return archive({"inputs/x.npy": b"\x93NUMPY\x01\x00" + size + header + bytes(16)})


def overlapping(members: int) -> bytes:
    """An archive whose directory names the same megabyte again and again."""
    whole = archive({"inputs/x.npy": npy(np.zeros(1 << 20, np.uint8))})
    directory, end = whole.index(b"PK\x01\x02"), whole.index(b"PK\x05\x06")
    entries = whole[directory:end] * members
    counts = members.to_bytes(2, "little") * 2
    size = len(entries).to_bytes(4, "little")
    return whole[:directory] + entries + whole[end : end + 8] + counts + size + whole[end + 16 :]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"PK\x03\x04 and no more", id="no-archive"),
        pytest.param(archive({"x.npy": HEADER}), id="foreign-member"),
        pytest.param(archive({"inputs/x.npy": HEADER}), id="no-data"),
        pytest.param(archive({"inputs/x.npy": HEADER[:40]}), id="half-header"),
        pytest.param(
            archive({"inputs/x.npy": HEADER.replace(b"(4,), }     ", b"(4000000000,)}")}),
            id="shape-larger-than-the-file",
        ),
        pytest.param(
            archive({"inputs/x.npy": npy(np.zeros(1 << 20))}, zipfile.ZIP_DEFLATED), id="bomb"
        ),
        pytest.param(archive({"inputs/x.npy": npy(np.ones(9))})[:-30], id="truncated"),
        pytest.param(overlapping(64), id="members-over-each-other"),
        pytest.param(with_header(shape="(" + "-" * 9000 + "1,)"), id="endless-minus"),
        pytest.param(with_header(shape="(" * 4000 + ")" * 4000), id="deep-tuples"),
        pytest.param(with_header(shape="(4, 0, 99999999999999999999)"), id="shape-past-64-bits"),
        pytest.param(with_header(shape="(-2, -2)"), id="negative-shape"),
        pytest.param(with_header(shape="(True, 4)"), id="shape-of-truths"),
        pytest.param(with_header(dtype="()"), id="dtype-that-is-none"),
        pytest.param(with_header(dtype="'>f4'"), id="big-endian"),
        pytest.param(with_header(dtype="'<U3'"), id="wide-texts"),
        pytest.param(with_header(dtype="'<U0'"), id="texts-without-width"),
        pytest.param(with_header(dtype="'<M8[s]'", shape="(2,)"), id="dates"),
        pytest.param(with_header(dtype="[('a', '<f4'), ('b', '<f4')]", shape="(2,)"), id="records"),
    ],
)
def test_bad_content_is_refused(data: bytes) -> None:
    with pytest.raises(BrokenBundle, match=r"golden\.npz"):
        decode(data)


def test_what_the_tests_above_break_is_whole() -> None:
    assert decode(with_header()).inputs["x"].shape == (4,)


def test_member_named_twice_is_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("inputs/x.npy", npy(np.zeros(1)))
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("inputs/x.npy", npy(np.ones(1)))

    with pytest.raises(BrokenBundle, match=r"expected 'inputs/x\.npy' once"):
        decode(buffer.getvalue())


def test_damaged_archive_is_read_or_refused(golden: Golden) -> None:
    whole = encode(golden)
    chance = random.Random(7)
    for _ in range(5000):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            place = chance.randrange(len(whole))
            damaged[place : place + 4] = chance.choice([b"\xff" * 4, bytes(4), chance.randbytes(4)])
        with contextlib.suppress(BrokenBundle):
            decode(bytes(damaged))
