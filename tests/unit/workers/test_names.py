"""Names that an ingest remembers: those that are open, and the last that began or ended."""

from workers.names import Names

LIMIT = 1024


def digest(number: int) -> bytes:
    return number.to_bytes(8, "little")


def add(names: Names, n: int, is_open: bool = False) -> None:
    for _ in range(n):
        number = names.next_number
        names.add(f"s{number}", digest(number), is_open)


def restored(names: Names) -> Names:
    again = Names(LIMIT)
    again.resume(names.next_number)
    for field in names.fields():
        again.thaw(field, names.freeze(field))
    return again


def test_stream_that_stays_open_keeps_no_other_name_alive() -> None:
    names = Names(LIMIT)
    for _ in range(100):
        add(names, 1, is_open=True)
        add(names, 299)
    assert names.n_open == 100
    assert len(names) < LIMIT + 2 * 256 + 100


def test_old_stream_that_ends_is_remembered_like_one_that_begins() -> None:
    # A repeat of its last record must not open it again.
    names = Names(LIMIT)
    add(names, 1, is_open=True)
    add(names, 5 * LIMIT)
    names.close("s0")
    add(names, LIMIT - 256)
    known = names.get("s0")
    assert known is not None
    assert not known.open
    add(names, 2 * LIMIT)
    assert names.get("s0") is None


def test_block_whose_last_open_name_ends_is_gone() -> None:
    names = Names(LIMIT)
    add(names, 1, is_open=True)
    add(names, 5 * LIMIT)
    touched, gone = names.close("s0")
    assert gone == ["names/0"]
    assert [names.has(field) for field in (*touched, *gone)] == [True, False]


def test_restored_names_forget_at_the_same_numbers() -> None:
    names = Names(LIMIT)
    for n in (700, 1, 900, 256, 255, 2000, 3):
        add(names, 1, is_open=True)
        add(names, n)
        names.close(f"s{names.next_number // 2}")
        again = restored(names)
        for each in (names, again):
            add(each, 777)
        assert {f: again.freeze(f) for f in again.fields()} == {
            f: names.freeze(f) for f in names.fields()
        }
        assert again.n_open == names.n_open
