"""Families on their way: added up over processes, and written as Prometheus reads them."""

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from dwctl.figures import page, spreads
from dwctl.figures.adding import Total
from dwctl.figures.families import Family, Merge, counter, gauge, histogram, info
from dwctl.figures.spreads import Spreads


def spread(*figures: float) -> Spreads:
    found = Spreads((0.1, 1.0))
    for figure in figures:
        found.add(("m",), figure)
    return found


def process(number: int, *figures: float) -> list[Family]:
    """What one process tells, as the others read it."""
    own = [
        counter("calls_total", "Calls.", ("model",), {("m",): number}),
        gauge("running", "Running.", (), number),
        gauge("age_max", "Age.", (), number, Merge.LARGEST),
        histogram("seconds", "Seconds.", ("model",), spread(*figures)),
    ]
    return msgspec.json.decode(msgspec.json.encode(own), type=list[Family])


def read(families: list[Family]) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(page.written(families).decode())
        for sample in family.samples
    }


def test_what_processes_tell_is_added_up_and_gauges_are_merged_as_they_say() -> None:
    total = Total()
    total.add(process(2, 0.0625, 0.5))
    total.add(process(5, 7.0, 0.0625))
    assert read(total.families()) == {
        ("calls_total", "m"): 7,
        ("running",): 7,
        ("age_max",): 5,
        ("seconds_bucket", "m", "0.1"): 2,
        ("seconds_bucket", "m", "1.0"): 3,
        ("seconds_bucket", "m", "+Inf"): 4,
        ("seconds_count", "m"): 4,
        ("seconds_sum", "m"): 7.625,
    }


def test_of_a_process_that_has_ended_counters_stay_and_gauges_go() -> None:
    total = Total()
    total.add(process(2, 0.05), alive=False)
    found = read(total.families())
    assert found["calls_total", "m"] == 2
    assert found["seconds_count", "m"] == 1
    assert ("running",) not in found


def test_what_another_version_has_left_behind_is_not_added() -> None:
    total = Total()
    total.add([counter("calls_total", "Calls.", ("model",), {("m",): 2})])
    total.add([counter("calls_total", "Calls.", ("model", "key"), {("m", "k"): 3})], alive=False)
    assert read(total.families()) == {("calls_total", "m"): 2}


def test_labels_come_back_as_they_were_and_no_label_ends_a_line() -> None:
    odd = 'a"b\\c\nd\u2028{}=,'
    written = page.written([info("models", 'Text with \\ and\n"', ("model",), [(odd,)])])
    assert written.count(b"\n") == 3
    [family] = text_string_to_metric_families(written.decode())
    assert family.documentation == 'Text with \\ and\n"'
    # Line ends are shown as what they are.
    assert family.samples[0].labels == {"model": 'a"b\\c\\nd\\u2028{}=,'}


def test_a_histogram_has_a_bound_on_its_series(monkeypatch) -> None:
    monkeypatch.setattr(spreads, "MOST_SERIES", 2)
    found = Spreads((1.0,))
    for label in ("a", "b", "c", "a"):
        found.add((label,), 0.5)
    assert ({*found.by_labels}, found.left_out) == ({("a",), ("b",)}, 1)


def test_every_figure_is_in_its_bucket_however_many_there_are() -> None:
    found = Spreads((1.0, 2.0))
    for number in range(1001):
        found.add(("a",), number % 3 + 0.5)
    spread = found.by_labels[("a",)]
    assert (spread.buckets, spread.total) == ([334, 334, 333], 334 * 0.5 + 334 * 1.5 + 333 * 2.5)
