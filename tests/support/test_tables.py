"""Column files: what is in them, and that it comes back."""

import csv
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator import ConfigError
from simulator.support.tables import column_file, inert
from tests.support.read_tables import read_columns

pyarrow = pytest.importorskip("pyarrow", exc_type=ImportError)
ENDINGS = ("jsonl", "csv", "parquet")
endings = pytest.mark.parametrize("ending", ENDINGS)
HOSTILE = [
    "",
    "2",
    "-1.5e3",
    "nan",
    "inf",
    "true",
    "a,b",
    'say "b"',
    "two\nlines",
    "\r\n",
    "\r",
    " x ",
    "ü",
    "\0",
    "1_0",
    "٣",
]


def write(path, *chunks):
    with column_file(path) as add:
        for chunk in chunks:
            add(chunk)
    return path.read_bytes()


def read_lines(path):
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
    return {name: [line[name] for line in lines] for name in lines[0]}


def plain(columns):
    """Return columns as lists, without the numbers that do not exist, to be compared."""
    lists = {name: column if isinstance(column, list) else column.tolist() for name, column in columns.items()}
    return {name: [None if item != item else item for item in column] for name, column in lists.items()}


# ---------------------------------------------------------------- by hand


COLUMNS = {
    "trace": ["a, b", "2", None],
    "latency": np.array([0.1, math.nan, 1e300]),
    "tokens": np.array([1, -2, 2**62]),
    "answered": np.array([True, False, True]),
}


def test_by_hand(tmp_path):
    assert write(tmp_path / "a.csv", COLUMNS).decode() == (
        'trace,latency,tokens,answered\n"a, b",0.1,1,true\n"2",,-2,false\n,1e+300,4611686018427387904,true\n'
    )
    assert write(tmp_path / "a.jsonl", COLUMNS).decode() == (
        '{"trace":"a, b","latency":0.1,"tokens":1,"answered":true}\n'
        '{"trace":"2","latency":null,"tokens":-2,"answered":false}\n'
        '{"trace":null,"latency":1e300,"tokens":4611686018427387904,"answered":true}\n'
    )
    write(tmp_path / "a.parquet", COLUMNS)
    for ending in ("csv", "parquet"):
        found = read_columns(tmp_path / f"a.{ending}")
        assert {name: column.dtype.kind for name, column in found.items()} == {
            "trace": "O",
            "latency": "f",
            "tokens": "i",
            "answered": "b",
        }
        assert plain(found) == plain(COLUMNS)


@endings
def test_chunks_are_one_table(tmp_path, ending):
    halves = [{name: column[part] for name, column in COLUMNS.items()} for part in (slice(0, 1), slice(1, 3))]
    read = read_lines if ending == "jsonl" else read_columns
    write(tmp_path / f"whole.{ending}", COLUMNS)
    first = write(tmp_path / f"halves.{ending}", *halves)
    assert plain(read(tmp_path / f"halves.{ending}")) == plain(read(tmp_path / f"whole.{ending}"))
    assert write(tmp_path / f"again.{ending}", *halves) == first


# ---------------------------------------------------------------- what comes back


texts = st.lists(st.one_of(st.none(), st.sampled_from(HOSTILE), st.text()), max_size=6)
floats = st.lists(st.floats(), max_size=6)
integers = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=6)


@settings(max_examples=60)
@given(st.one_of(texts, floats.map(np.array), integers.map(lambda values: np.array(values, dtype=np.int64))))
def test_what_is_written_comes_back(tmp_path_factory, column):
    folder = tmp_path_factory.mktemp("tables")
    count = len(column)
    columns = {"row": np.arange(count), "a": column, "b,\n": column}
    kind = column.dtype.kind if isinstance(column, np.ndarray) else "O"
    for ending in ENDINGS:
        write(folder / f"a.{ending}", columns)
    for ending in ("csv", "parquet"):
        texts_ = ("a", "b,\n") if kind == "O" else ()
        found = read_columns(folder / f"a.{ending}", texts=texts_)
        for name in ("a", "b,\n") if count else ():
            assert found[name].dtype.kind == kind or (kind, ending) == ("f", "csv")
            assert plain({"a": found[name]}) == plain({"a": column})
            if kind == "f":
                numbers = ~np.isnan(column)
                assert found[name][numbers].tobytes() == column[numbers].tobytes()  # to the bit: -0.0 too
    if count:
        said = [None if isinstance(item, float) and not math.isfinite(item) else item for item in list(column)]
        assert read_lines(folder / "a.jsonl")["a"] == said


@given(texts)
@settings(max_examples=40)
def test_other_readers_agree_on_csv(tmp_path_factory, column):
    path = tmp_path_factory.mktemp("tables") / "a.csv"
    write(path, {"row": np.arange(len(column)), "a": column})
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    cells = [inert(text) if text else "" for text in column]
    assert rows == [["row", "a"], *([str(i), cell] for i, cell in enumerate(cells))]
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in cells)
    with column_file(path, formulas=True) as add:
        add({"row": np.arange(len(column)), "a": column})
    with open(path, encoding="utf-8", newline="") as file:
        assert [row[1] for row in csv.reader(file)] == ["a", *(text or "" for text in column)]


@given(st.text(), st.text())
def test_texts_with_an_apostrophe_stay_different(one, other):
    assert (inert(one) == inert(other)) == (one == other)


@endings
def test_half_a_character_is_escaped(tmp_path, ending):
    write(tmp_path / f"a.{ending}", {"a": ["x\ud800", "y"]})
    read = read_lines if ending == "jsonl" else read_columns
    assert plain(read(tmp_path / f"a.{ending}")) == {"a": ["x\\ud800", "y"]}


def test_lists_of_numbers_are_numbers(tmp_path):
    write(
        tmp_path / "a.parquet", {"a": [1, 2], "b": [1, 2.5], "c": [True, False], "d": np.array([1, None], dtype=object)}
    )
    found = read_columns(tmp_path / "a.parquet")
    assert {name: column.tolist() for name, column in found.items()} == {
        "a": [1, 2],
        "b": [1.0, 2.5],
        "c": [True, False],
        "d": ["1", None],
    }


def test_csv_of_other_origin(tmp_path):
    (tmp_path / "a.csv").write_bytes(b'\xef\xbb\xbfa,"b ""x""",c,d,e\r\n1,x,1,,-inf\r\n2,y z,1.5,,3\r\n')
    found = read_columns(tmp_path / "a.csv", texts=["d"])
    assert {name: column.tolist() for name, column in found.items()} == {
        "a": [1, 2],
        'b "x"': ["x", "y z"],
        "c": [1.0, 1.5],
        "d": [None, None],
        "e": [-math.inf, 3.0],
    }
    (tmp_path / "big.csv").write_text(f"a,b\n{2**64 - 1},{2**64}\n0,1\n")
    assert {name: column.dtype.kind for name, column in read_columns(tmp_path / "big.csv").items()} == {
        "a": "u",
        "b": "f",
    }


# ---------------------------------------------------------------- what is refused


@endings
@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"a": np.zeros(1)}, r"its columns are a \(f\), b \(text\), not a \(f\)"),
        ({"b": ["x"], "a": np.zeros(1)}, r"not b \(text\), a \(f\)"),
        ({"a": np.zeros(1, dtype=np.int64), "b": ["x"]}, r"not a \(i\), b \(text\)"),
        ({"a": np.zeros(2), "b": ["x"]}, "columns must be equally long, not a 2, b 1"),
    ],
)
def test_columns_that_differ(tmp_path, ending, second, message):
    with pytest.raises(ConfigError, match=message):
        write(tmp_path / f"a.{ending}", {"a": np.zeros(1), "b": ["x"]}, second)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there is no row of titles"),
        ("a,b\n1\n", "row 2 has 1 fields, not 2"),
        ('a\n"x', "row 2 is no CSV"),
        ('a\nx"y\n', "row 2 is no CSV"),
        ("a\n\xff", "can't decode"),
    ],
)
def test_files_that_are_no_csv(tmp_path, text, message):
    (tmp_path / "a.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=message):
        read_columns(tmp_path / "a.csv")


def test_files_that_are_none(tmp_path):
    (tmp_path / "a.parquet").write_text("a,b\n")
    with pytest.raises(ConfigError, match=r"a\.parquet': cannot be read \("):
        read_columns(tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match=r"a\.csv': cannot be read \(No such file or directory\)"):
        read_columns(tmp_path / "a.csv")
    with pytest.raises(ConfigError, match=r"columns are read from \.csv or \.parquet files, not 'a\.npz'"):
        read_columns("a.npz")
    with pytest.raises(ConfigError, match=r"written to \.jsonl, \.ndjson, \.csv or \.parquet files"):
        write(tmp_path / "a.npz", COLUMNS)
