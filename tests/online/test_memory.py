"""A tab that runs and runs does not grow without end."""

import itertools

from _ext import online

from lab.paths import EXAMPLES
from tests.online.engine import Engine

_RUNS = 500
# Megabytes of the tab's process.
_MOST = 600


def test_five_hundred_runs_in_one_tab_stay_under_six_hundred_megabytes(engine: Engine) -> None:
    began = engine.resident()
    calls = [(EXAMPLES / call).read_text() for call in online.calls() if not online.refusal(call)]
    for source in itertools.islice(itertools.cycle(calls), _RUNS):
        assert engine.run(source)["spent"] == ""
    print(f"resident memory of the tab: {began:.0f} MB, after {_RUNS} runs {engine.resident():.0f} MB")
    assert engine.resident() < _MOST
