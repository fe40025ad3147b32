"""What a reader does on a live page, in a headless Chromium."""

import contextlib
import os
import signal

import psutil
import pytest
from playwright.sync_api import Browser, Error, expect

from lab.waiting import wait_until
from tests.bed import PATIENCE
from tests.live.reader import Reader, pids
from tests.live.server import Server, start


def test_a_call_runs_as_it_stands_and_draws_its_timeline(chains: Reader) -> None:
    call = chains.block("chains/demo.py")
    lines = call.run().strip().splitlines()
    assert lines == [f"[worker] INFO Updated corporation {number}" for number in range(98000001, 98000007)]
    expect(call.figure.locator(".live-timeline svg")).to_be_visible()
    expect(call.note).to_contain_text("chains/tasks.py")


def test_an_edited_task_is_what_the_worker_runs_next(chains: Reader) -> None:
    task = chains.block("chains/tasks.py", "sleep(")
    task.edit("Updated corporation", "Visited corporation")
    call = chains.block("chains/demo.py")
    assert "Visited corporation 98000006" in call.run()
    expect(call.note).to_contain_text("as you edited")
    task.click("reset")
    assert "Updated corporation 98000006" in call.run()


def test_an_edited_call_changes_what_happens_and_reset_restores(chains: Reader) -> None:
    call = chains.block("chains/demo.py")
    before = call.figure.locator(".live-editor").inner_text()
    call.edit("98000006", "98000042")
    assert "Updated corporation 98000042" in call.run()
    call.click("reset")
    assert call.figure.locator(".live-editor").inner_text().strip() == before.strip()
    expect(call.out).to_be_hidden()


def test_stop_ends_a_busy_loop(chains: Reader) -> None:
    call = chains.block("chains/demo.py")
    call.edit("from chains", 'print("round and round")\nwhile True:\n    pass\nfrom chains')
    call.click("run")
    expect(call.out).to_contain_text("round and round")
    call.click("stop")
    expect(call.note).to_contain_text("Stopped")
    call.click("reset")
    assert "98000006" in call.run()


def test_stop_ends_a_flood_of_tasks(chains: Reader) -> None:
    call = chains.block("chains/demo.py")
    call.edit("98000006]", "98000006] * 500")
    call.click("run")
    expect(call.out).to_contain_text("98000006")
    call.click("stop")
    expect(call.note).to_contain_text("Stopped")
    call.click("reset")
    assert len(call.run().strip().splitlines()) == 6


@pytest.mark.parametrize("victim", ["kernel", "worker", "broker"])
def test_a_killed_part_is_told_and_recovered_by_run(chains: Reader, victim: str) -> None:
    call = chains.block("chains/demo.py")
    os.kill(pids(call)[victim], signal.SIGKILL)
    chains.state("has ended")
    call.click("reset")
    assert "98000006" in call.run()
    chains.state("Ready")


def test_two_tabs_do_not_see_each_others_tasks(chains: Reader, browser: Browser, live: Server) -> None:
    other = Reader(browser, live, "chains")
    task = chains.block("chains/tasks.py", "sleep(")
    task.edit("Updated corporation", "Visited corporation")
    assert "Visited corporation" in chains.block("chains/demo.py").run()
    assert "Visited corporation" not in other.block("chains/demo.py").run()
    mine, others = pids(chains.block("chains/demo.py")), pids(other.block("chains/demo.py"))
    assert not set(mine.values()) & set(others.values())
    other.context.close()


@pytest.mark.parametrize("leave", ["another page", "close the tab", "the tab crashes"])
def test_leaving_the_page_frees_everything(browser: Browser, live: Server, leave: str) -> None:
    reader = Reader(browser, live, "chains")
    behind = pids(reader.block("chains/demo.py"))
    if leave == "another page":
        reader.page.goto(f"{live.address}index.html")
    elif leave == "close the tab":
        reader.page.close()
    else:
        with contextlib.suppress(Error):
            reader.page.goto("chrome://crash")
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in behind.values()), PATIENCE, "the end of them all")
    reader.context.close()


def test_a_kernel_whose_page_never_came_is_ended(live: Server) -> None:
    reader = live.reader()
    reader.get(live.address, timeout=PATIENCE)
    kernels = f"{live.address}api/kernels"
    kernel = reader.post(kernels, headers={"X-XSRFToken": str(reader.cookies["_xsrf"])}, timeout=PATIENCE).json()["id"]
    assert reader.get(f"{kernels}/{kernel}", timeout=PATIENCE).status_code == 200
    wait_until(
        lambda: reader.get(f"{kernels}/{kernel}", timeout=PATIENCE).status_code == 404,
        PATIENCE,
        "its end",
    )


def test_a_kernel_that_dies_while_it_starts_is_replaced_without_a_word(browser: Browser) -> None:
    server = start()
    starting = psutil.Process(server.process.pid)

    def kernels() -> list[psutil.Process]:
        return [child for child in starting.children() if "lab.pages.live" in child.cmdline()]

    wait_until(kernels, PATIENCE, "the start of the first kernel")
    for kernel in kernels():
        kernel.kill()
    reader = Reader(browser, server, "chains")
    assert "98000006" in reader.block("chains/demo.py").run()
    assert reader.wrong == []
    reader.context.close()
    server.stop()


def test_a_tab_where_nothing_runs_for_twenty_minutes_frees_everything_and_run_recovers(chains: Reader) -> None:
    call = chains.block("chains/demo.py")
    chains.page.clock.install()
    behind = pids(call)
    chains.page.clock.fast_forward("19:00")
    chains.state("Ready")
    chains.page.clock.fast_forward("01:00")
    chains.state("Nothing ran for 20 minutes")
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in behind.values()), PATIENCE, "the end of them all")
    call.click("reset")
    assert "98000006" in call.run()
