from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir.bundle.errors import BrokenBundle, InvalidVersions
from weir.bundle.versions import (
    VersionPolicy,
    VersionsFile,
    is_label,
    is_version,
    parse,
    read,
    versions_to_serve,
)

ALL, LATEST = VersionPolicy(), VersionPolicy(latest=2)
numbers = st.integers(1, 10**18 - 1)
names_of_labels = st.builds("{}{}".format, st.sampled_from("aZ_"), st.text("aZ09_.-", max_size=63))
labels = st.dictionaries(names_of_labels, numbers, max_size=4)
policies = (
    st.none()
    | st.builds(VersionPolicy, latest=st.none() | st.integers(1, 99), specific=st.just(()))
    | st.builds(VersionPolicy, specific=st.lists(numbers, min_size=1, max_size=5).map(tuple))
)


def test_everything_can_be_said() -> None:
    text = b"""# Which versions answer.
    policy = { latest = 2 }
    [labels]
    stable = 1
    "v1.2-rc" = 3
    """

    assert parse(text) == VersionsFile(LATEST, {"stable": 1, "v1.2-rc": 3})


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("", None),
        ('policy = "all"', ALL),
        ("policy = {latest = 1}", VersionPolicy(latest=1)),
        ("policy = {specific = [3, 1]}", VersionPolicy(specific=(3, 1))),
        ("[policy]\nlatest = 7", VersionPolicy(latest=7)),
    ],
)
def test_a_policy_is_one_of_three_or_none(text: str, policy: VersionPolicy | None) -> None:
    assert parse(text.encode()) == VersionsFile(policy)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("labels", "versions.toml: expected TOML: "),
        ("a = " + "[" * 5000, "versions.toml: expected TOML: "),
        ("labels = {a = " + "9" * 5000 + "}", "versions.toml: expected TOML: "),
        ("policies = 'all'", r"versions.toml: expected policy and labels, got \['policies'\]"),
        ("policy = 'some'", "policy: expected \"all\", .* got 'some'"),
        ("policy = 2", 'policy: expected "all"'),
        ("policy = {}", 'policy: expected "all"'),
        ("policy = {latest = 1, specific = [1]}", 'policy: expected "all"'),
        ("policy = {latest = 0}", "policy.latest: expected a number of versions from 1, got 0"),
        ("policy = {latest = true}", "policy.latest: .* got True"),
        ("policy = {latest = 1.5}", r"policy.latest: .* got 1\.5"),
        ("policy = {specific = []}", r"policy.specific: expected a list of versions, got \[\]"),
        ("policy = {specific = 1}", "policy.specific: expected a list of versions, got 1"),
        ("policy = {specific = [1, '2']}", "policy.specific: expected versions from 1, got '2'"),
        ("policy = {specific = [1, 0]}", "policy.specific: expected versions from 1, got 0"),
        ("labels = 1", "labels: expected a table of versions by label, got 1"),
        ("labels = {'' = 1}", "labels: expected names of up to 64 .* got ''"),
        ("labels = {1st = 1}", "labels: expected names .* got '1st'"),
        ("labels = {'ä' = 1}", "labels: expected names .* got 'ä'"),
        (f"labels = {{{'a' * 65} = 1}}", "labels: expected names .* got 'aaa"),
        ("labels = {a.b = 1}", r"labels.a: expected a version from 1, got \{'b': 1\}"),
        ("labels = {a = 0}", "labels.a: expected a version from 1, got 0"),
        ("labels = {a = true}", "labels.a: .* got True"),
        ("labels = {a = '1'}", "labels.a: .* got '1'"),
        (f"labels = {{a = {10**18}}}", "labels.a: expected a version from 1, got 1000"),
    ],
)
def test_what_cannot_be_is_refused_by_key(text: str, message: str) -> None:
    with pytest.raises(InvalidVersions, match=message):
        parse(text.encode())


def test_other_bytes_than_utf8_are_refused() -> None:
    with pytest.raises(InvalidVersions, match="expected UTF-8"):
        parse(b"# \xff")


@pytest.mark.parametrize("text", [b"\x00", "\ufeff[labels]".encode(), b"[labels]\n[labels]"])
def test_what_toml_refuses_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidVersions, match="expected TOML"):
        parse(text)


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        (VersionsFile(), [5]),
        (VersionsFile(ALL), [1, 2, 4, 5]),
        (VersionsFile(LATEST), [4, 5]),
        (VersionsFile(VersionPolicy(latest=9)), [1, 2, 4, 5]),
        (VersionsFile(VersionPolicy(specific=(4, 3, 1))), [1, 4]),
        (VersionsFile(labels={"stable": 2}), [2, 5]),
        (VersionsFile(VersionPolicy(specific=(1,)), {"canary": 5, "stable": 1, "gone": 3}), [1, 5]),
    ],
)
def test_policy_and_labels_choose_among_what_is_there(
    versions: VersionsFile, expected: list[int]
) -> None:
    assert versions_to_serve(versions, [4, 1, 5, 2]) == expected
    assert versions_to_serve(versions, []) == []


@given(st.builds(VersionsFile, policies, labels), st.sets(numbers, max_size=8))
def test_labelled_versions_and_the_newest_of_all_are_wanted(
    versions: VersionsFile, present: set[int]
) -> None:
    chosen = versions_to_serve(versions, present)

    assert chosen == sorted(set(chosen)) and set(chosen) <= present
    assert present & set(versions.labels.values()) <= set(chosen)
    if present and versions.policy == LATEST:
        assert max(present) in chosen


@pytest.mark.parametrize("text", ["stable", "_a", "v1.2-rc", "A" * 64])
def test_labels(text: str) -> None:
    assert is_label(text)


@pytest.mark.parametrize("text", ["", "1", "1a", "-1", ".a", "a b", "a\n", "a/b", "A" * 65, "é", 1])
def test_what_is_no_label(text: object) -> None:
    assert not is_label(text)


def test_versions_are_whole_numbers_from_one() -> None:
    assert is_version(1) and is_version(10**18 - 1)
    assert not any(map(is_version, (0, -1, 10**18, True, 1.0, "1")))


def test_no_file_says_nothing(tmp_path: Path) -> None:
    assert read(tmp_path) == read(tmp_path / "absent") == VersionsFile()


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("")
    (tmp_path / "versions.toml").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(BrokenBundle, match=r"versions\.toml: .* a link"):
        read(tmp_path)


def test_a_file_of_pure_size_is_refused(tmp_path: Path) -> None:
    (tmp_path / "versions.toml").write_bytes(b"#" * ((1 << 20) + 1))

    with pytest.raises(BrokenBundle, match="at most 1048576 bytes"):
        read(tmp_path)
