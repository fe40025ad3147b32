"""What the live server refuses."""

import asyncio
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import psutil
import pytest
import requests
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect

from lab.paths import ROOT
from tests.bed import PATIENCE
from tests.live.server import Server, start

EVIL = {"Origin": "http://evil.example"}


def _kernels(live: Server) -> str:
    return f"{live.address}api/kernels"


def _proof(reader: requests.Session) -> dict[str, str]:
    """What jupyter-server wants to see with a cookie: that the page could read the one named _xsrf."""
    return {"X-XSRFToken": str(reader.cookies["_xsrf"])}


@pytest.mark.parametrize("path", ["index.html", "chains.html", "evidence.json", "_static/site.css", "api/kernels"])
def test_without_the_token_nothing_is_served(live: Server, path: str) -> None:
    answer = requests.get(live.address + path, timeout=PATIENCE, allow_redirects=False)
    assert answer.status_code in (302, 403)
    assert "login" in answer.headers.get("Location", "login")


def test_without_the_token_no_kernel_is_started(live: Server) -> None:
    assert requests.post(_kernels(live), timeout=PATIENCE).status_code == 403


def test_a_wrong_token_opens_nothing(live: Server) -> None:
    answer = requests.get(
        live.address + "index.html", params={"token": "0" * 48}, timeout=PATIENCE, allow_redirects=False
    )
    assert answer.status_code == 302


def test_another_origin_can_not_start_a_kernel_with_the_victims_cookies(live: Server) -> None:
    victim = live.reader()
    victim.get(live.address + "index.html", timeout=PATIENCE)
    before = len(victim.get(_kernels(live), timeout=PATIENCE).json())
    # jupyter-server answers a foreign origin as if there were nothing at this address.
    assert victim.post(_kernels(live), headers=EVIL, timeout=PATIENCE).status_code in (403, 404)
    with_token = {**EVIL, **_proof(victim)}
    assert victim.post(_kernels(live), headers=with_token, timeout=PATIENCE).status_code in (403, 404)
    assert len(victim.get(_kernels(live), timeout=PATIENCE).json()) == before


def test_another_origin_can_not_read_with_the_victims_cookies(live: Server) -> None:
    answer = live.reader().get(_kernels(live), headers=EVIL, timeout=PATIENCE)
    assert answer.status_code in (403, 404)
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_another_origin_can_not_open_a_websocket_with_the_victims_cookies(live: Server) -> None:
    victim = live.reader()
    victim.get(live.address + "index.html", timeout=PATIENCE)
    kernel = victim.post(_kernels(live), headers=_proof(victim), timeout=PATIENCE).json()["id"]
    cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in victim.cookies)
    address = f"ws://{urlsplit(live.address).netloc}/api/kernels/{kernel}/channels"

    async def knock(**headers: str) -> int:
        try:
            line = await websocket_connect(HTTPRequest(address, headers={"Cookie": cookies, **headers}))
        except HTTPClientError as error:
            return int(error.code)
        line.close()
        return 101

    # On a thread of its own: the browser of other tests has an event loop on this one.
    with ThreadPoolExecutor() as thread:
        assert thread.submit(lambda: asyncio.run(knock(Origin="http://evil.example"))).result() == 403
        assert thread.submit(lambda: asyncio.run(knock(Origin=live.address.rstrip("/")))).result() == 101


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example"])
def test_a_foreign_host_header_is_refused(live: Server, host: str) -> None:
    answer = live.reader().get(live.address + "index.html", headers={"Host": host}, timeout=PATIENCE)
    assert answer.status_code == 403


@pytest.mark.parametrize("path", ["../../README.md", "%2e%2e/%2e%2e/README.md", "..%2f..%2fREADME.md", "/etc/passwd"])
def test_a_path_does_not_leave_the_site(live: Server, path: str) -> None:
    reader = live.reader()
    request = requests.Request("GET", live.address).prepare()
    request.url = live.address + path
    request.headers["Cookie"] = "; ".join(f"{cookie.name}={cookie.value}" for cookie in reader.cookies)
    answer = reader.send(request, timeout=PATIENCE)
    assert answer.status_code in (302, 403, 404)
    assert "root:" not in answer.text
    assert "Alliance Auth, proven" not in answer.text


def test_a_kernel_is_reached_through_sockets_in_a_folder_of_this_user_alone(live: Server) -> None:
    victim = live.reader()
    victim.get(live.address + "index.html", timeout=PATIENCE)
    victim.post(_kernels(live), headers=_proof(victim), timeout=PATIENCE).raise_for_status()
    (runtime,) = live.tmp.glob("celery-faq-*/jupyter")
    assert runtime.parent.stat().st_mode & 0o077 == 0
    # Shell, events, input, heartbeat, control.
    assert len([path for path in runtime.iterdir() if path.is_socket()]) >= 5


def test_nothing_listens_but_on_loopback(live: Server) -> None:
    family = [live.process.pid, *(child.pid for child in psutil.Process(live.process.pid).children(recursive=True))]
    listening = [line for line in psutil.net_connections("inet") if line.status == psutil.CONN_LISTEN]
    assert {line.laddr.ip for line in listening if line.pid in family} == {"127.0.0.1"}


def test_other_services_of_jupyter_are_not_there(live: Server) -> None:
    reader = live.reader()
    for path in ("api/contents", "api/terminals", "api/config/x", "files/x", "api/sessions", "nbconvert/html/x"):
        assert reader.get(live.address + path, timeout=PATIENCE).status_code == 404, path


def test_a_cookie_from_an_earlier_start_is_worthless() -> None:
    first = start()
    port = str(urlsplit(first.address).port)
    old = first.reader()
    assert old.get(first.address + "index.html", timeout=PATIENCE, allow_redirects=False).status_code == 200
    first.stop()
    second = start("--port", port)
    try:
        answer = old.get(second.address + "index.html", timeout=PATIENCE, allow_redirects=False)
        assert answer.status_code == 302
    finally:
        second.stop()


def test_a_bind_to_more_than_loopback_needs_an_explicit_word() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lab.pages.server", "--ip", "0.0.0.0", "--no-browser"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode != 0
    assert "--let-others-in" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_port_in_use_is_one_sentence(live: Server) -> None:
    port = str(urlsplit(live.address).port)
    done = subprocess.run(
        [sys.executable, "-m", "lab.pages.server", "--port", port, "--no-browser"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode != 0
    assert f"Port {port}" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_page_may_speak_with_its_own_origin_alone(live: Server) -> None:
    answer = live.reader().get(live.address + "index.html", timeout=PATIENCE)
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert json.dumps(live.token) not in answer.text
