"""A broker that goes away, or keeps silent, while a run stands on it."""

import json
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from lab.evidence import FORMAT
from lab.waiting import wait_until
from tests.bed import PATIENCE, Bed
from tests.lab.lender import NUMBER, Lender

CHAPTERS = ("first_task", "when_to_use")


def _ends_in_one_sentence(bed: Bed, run: "subprocess.Popen[bytes]") -> tuple[list[str], str]:
    """Wait for the end of a run; return what it told of claims and evidence, and the one sentence beside that."""
    assert run.wait(PATIENCE) == 1, bed.told()
    claims: list[str] = []
    others: list[str] = []
    for line in bed.told().splitlines():
        (claims if line.startswith((*CHAPTERS, "Evidence of ")) else others).append(line)
    (sentence,) = others
    wait_until(lambda: not bed.registered(), PATIENCE, "the end of every process")
    assert not bed.folders()
    return claims, sentence


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lent_broker_that_goes_away_is_one_sentence_and_what_was_proven_stays(
    bed: Bed, lender: Lender, sign: signal.Signals
) -> None:
    evidence = Path(bed.env["LAB_EVIDENCE"])
    evidence.write_text(json.dumps({"format": FORMAT, "chapters": {"chains": {"from": "before"}}}))
    run = bed.start(*CHAPTERS, REDIS_URL=lender.tcp(lender.nameless()))
    wait_until(lambda: all(name in bed.told() for name in CHAPTERS), PATIENCE, "the second chapter's first claim")
    lender.process.send_signal(sign)
    claims, sentence = _ends_in_one_sentence(bed, run)
    where = f"The broker at redis://127.0.0.1:{lender.port}/{NUMBER} has gone during the run ("
    assert sentence.startswith(where), sentence
    assert "start it again" in sentence
    assert lender.password not in bed.told()
    ended = claims[0].split()[0]
    assert f"Evidence of {ended}: " in claims[-1]
    kept = json.loads(evidence.read_text())["chapters"]
    assert kept.keys() == {"chains", ended}
    assert kept["chains"] == {"from": "before"}
    assert {claim["outcome"] for claim in kept[ended]["claims"]} == {"passed"}
    if sign == signal.SIGSTOP:
        lender.process.send_signal(signal.SIGCONT)
        assert lender.untouched()


def test_a_private_broker_that_is_stopped_is_one_sentence_and_leaves_nothing(bed: Bed) -> None:
    run = bed.start(*CHAPTERS, "--broker", "embedded")
    wait_until(lambda: "✓" in bed.told(), PATIENCE, "the first claim")
    (server,) = [process for process in bed.registered() if "valkey-server" in process.name()]
    server.suspend()
    _, sentence = _ends_in_one_sentence(bed, run)
    assert "look what ended or stopped it" in sentence


def test_a_broker_that_accepts_and_never_answers_is_one_sentence(bed: Bed) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=16) as listening:
        where = f"redis://127.0.0.1:{listening.getsockname()[1]}/0"
        bed.refused(CHAPTERS[0], words=f"No broker answers at {where} (Timeout", REDIS_URL=f"{where}")
