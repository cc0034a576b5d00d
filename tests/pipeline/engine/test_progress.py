import pytest

from pipeline.engine.progress import FailureBudget, ProgressLine


@pytest.mark.parametrize(
    ("text", "records", "allowed"),
    [("", 3, 2), ("", 100, 10), ("", 5_000, 50), ("0", 100, 0), ("7", 100, 7), ("1%", 100, 1), ("0.05", 100, 5)],
)
def test_allowed_failures(text, records, allowed):
    assert FailureBudget(text).allowed(records) == allowed


def test_a_line_shows_counts_rate_and_remaining_time(capsys, monkeypatch):
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    with ProgressLine(100, "items", "index", done=20) as line:
        line.update(30)
        now = 40.0
        line.update(60, "2 failed")
        now = 41.0
        line.update(61)
    assert capsys.readouterr().err == "index 60/100 items · 1.0 items/s · 2 failed · ETA 40 s\n"
