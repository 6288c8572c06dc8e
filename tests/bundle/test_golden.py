import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from bundle.errors import BrokenBundle
from bundle.golden import Golden, decode, encode


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
        np.array(["a", "längere"]),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    ],
    ids=["uint8", "scalar", "empty", "text", "fortran"],
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


def test_objects_are_not_written() -> None:
    with pytest.raises(ValueError, match="Object arrays"):
        encode(Golden(inputs={"x": np.array([{}])}, outputs={}))


def test_pickle_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    trap = np.empty(1, object)
    trap[0] = Trap()

    with pytest.raises(BrokenBundle, match="allow_pickle"):
        decode(archive({"inputs/x.npy": npy(trap)}))
    with pytest.raises(BrokenBundle):
        decode(archive({"inputs/x.npy": pickle.dumps(Trap())}))

    assert not Path("unpickled").exists()


HEADER = npy(np.ones(4, np.float32))[:128]


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
    ],
)
def test_bad_content_is_refused(data: bytes) -> None:
    with pytest.raises(BrokenBundle, match=r"golden\.npz"):
        decode(data)
