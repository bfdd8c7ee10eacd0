from router.pacing import Pacer


def test_what_is_sent_counts_until_ingest_has_read_it() -> None:
    pacer = Pacer(100)
    for offset in (7, 8):
        assert not pacer.must_wait(0, 50)
        pacer.sent(0, 50)
        pacer.written(0, offset, 50)
    assert pacer.must_wait(0, 1)
    pacer.read(0, 7)
    assert pacer.must_wait(0, 1)
    pacer.read(0, 8)
    assert not pacer.must_wait(0, 50)
    assert pacer.must_wait(0, 51)


def test_what_is_on_its_way_counts_as_unread() -> None:
    pacer = Pacer(100)
    pacer.sent(0, 100)
    pacer.read(0, 10)
    assert pacer.must_wait(0, 1)
    pacer.written(0, 9, 100)
    pacer.read(0, 10)
    assert not pacer.must_wait(0, 100)


def test_a_failed_record_takes_no_room() -> None:
    pacer = Pacer(100)
    pacer.sent(0, 100)
    pacer.failed(0, 100)
    assert not pacer.must_wait(0, 100)


def test_partitions_do_not_wait_for_each_other() -> None:
    pacer = Pacer(100)
    pacer.sent(0, 100)
    assert pacer.must_wait(0, 1)
    assert not pacer.must_wait(1, 100)


def test_a_record_larger_than_the_limit_goes_alone() -> None:
    pacer = Pacer(100)
    assert not pacer.must_wait(0, 500)
    pacer.sent(0, 500)
    assert pacer.must_wait(0, 1)


def test_without_a_limit_nothing_waits() -> None:
    pacer = Pacer(None)
    pacer.sent(0, 10**9)
    assert not pacer.must_wait(0, 10**9)
