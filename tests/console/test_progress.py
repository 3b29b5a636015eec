"""Progress: reported by task, amount and fraction."""

from lm.console.progress import with_progress


def test_progress_counts_the_bytes_that_were_consumed():
    pieces, reports = [b"x" * 500_000, b"y" * 1_500_000], []
    passed_on = list(
        with_progress(iter(pieces), "Reading", 2_000_000, lambda *report: reports.append(report))
    )
    assert passed_on == pieces
    assert reports == [("Reading", 0.0), ("Reading", 0.25), ("Reading, 2 MB", 1.0)]


def test_progress_has_no_fraction_without_a_total():
    reports = []
    list(with_progress(iter([b"x"]), "Reading", None, lambda *report: reports.append(report)))
    assert reports == [("Reading", None), ("Reading", None)]
