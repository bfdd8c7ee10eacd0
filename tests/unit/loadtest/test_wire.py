"""The benchmark of the wire format measures what it says, and prints it for programs too."""

import json

import pytest

from loadtest.wire import SHAPES, Shape, main, measure


def test_sum_and_cost_per_batch_follow_from_the_measured_times() -> None:
    figures = measure(Shape("small", 4, 2, 30, 0.1), rounds=2)
    parts = (figures.pack_us, figures.encode_us, figures.decode_us, figures.unpack_us)
    assert all(part > 0 for part in parts)
    assert figures.total_us == pytest.approx(sum(parts))
    assert figures.frame_us_per_batch == pytest.approx((parts[1] + parts[2]) / 4)


def test_json_has_a_row_for_each_shape(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--json", "--rounds", "1"])
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["name"] for row in rows] == [shape.name for shape in SHAPES]
    assert [row["n_batches"] for row in rows] == [32, 256]


def test_table_has_a_line_for_each_shape(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--rounds", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [shape.name for shape in SHAPES]
