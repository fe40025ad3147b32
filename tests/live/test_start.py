"""How the live server starts where nothing was built before, and what it leaves behind."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Browser, expect

from lab.paths import ROOT
from lab.processes import lives
from lab.waiting import wait_until
from tests.bed import PATIENCE, slowness
from tests.live.reader import Reader, pids
from tests.live.server import Server, start


def test_from_nothing_a_block_can_be_run_within_a_minute_and_says_that_it_has_no_evidence_yet(
    browser: Browser, tmp_path: Path
) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    began = time.monotonic()
    server = start(root=clone)
    reader = Reader(browser, server, "chains")
    # A minute of a machine that has nothing else to do.
    assert (time.monotonic() - began) / slowness() <= 60
    call = reader.block("chains/demo.py")
    expect(call.figure.locator(".cell_output")).to_contain_text("not run here yet")
    expect(call.figure.locator("p.evidence")).to_contain_text("Not run here yet")
    assert "98000006" in call.run()
    expect(call.figure.locator(".cell_output")).to_be_hidden()
    # Each line of progress says how many seconds have passed.
    assert len(re.findall(r"^ *\d+\.\d s  \w", server.log.read_text(), re.MULTILINE)) >= 3
    reader.context.close()
    server.stop()


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_live_server_that_is_ended_leaves_nothing(browser: Browser, sign: signal.Signals) -> None:
    server = start()
    reader = Reader(browser, server, "chains")
    behind = [psutil.Process(pid) for pid in pids(reader.block("chains/demo.py")).values()]
    behind += psutil.Process(server.process.pid).children(recursive=True)
    os.kill(server.process.pid, sign)
    server.process.wait(PATIENCE)
    wait_until(lambda: not any(lives(process) for process in behind), PATIENCE, "the end of every process")
    server.gone()
    call = reader.block("chains/demo.py")
    call.click("reset")
    call.run("Start it again with nox -s live")
    reader.state("has ended")
    reader.context.close()


def test_a_long_path_to_what_is_temporary_is_no_hindrance(browser: Browser, tmp_path: Path) -> None:
    under = tmp_path / ("long" * 30)
    under.mkdir()
    server = start(under=under)
    reader = Reader(browser, server, "chains")
    assert "98000006" in reader.block("chains/demo.py").run()
    reader.context.close()
    server.stop()


def test_two_live_servers_of_one_machine_do_not_see_each_others_tasks(browser: Browser, live: Server) -> None:
    other = start()
    readers = [Reader(browser, server, "chains") for server in (live, other)]
    task = readers[0].block("chains/tasks.py", "sleep(")
    task.edit("Updated corporation", "Visited corporation")
    assert "Visited corporation" in readers[0].block("chains/demo.py").run()
    assert "Visited corporation" not in readers[1].block("chains/demo.py").run()
    mine, others = (set(pids(reader.block("chains/demo.py")).values()) for reader in readers)
    assert not mine & others
    # The token of one opens nothing of the other.
    assert readers[0].page.request.get(f"{other.address}index.html?token={live.token}", max_redirects=0).status == 302
    for reader in readers:
        reader.context.close()
    other.stop()
