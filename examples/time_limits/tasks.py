import subprocess
import time

import requests
from allianceauth.services.hooks import get_extension_logger
from celery import shared_task
from django.core.cache import cache

logger = get_extension_logger(__name__)


@shared_task(soft_time_limit=0.5, time_limit=1)
def update_assets(pages):
    logger.info("Assets: update begins")
    for _ in range(pages):
        time.sleep(0.1)  # stands for a page from ESI
    logger.info("Assets: update ends")


@shared_task(soft_time_limit=0.2, time_limit=1)
def update_contracts(urls):
    for url in urls:
        try:
            requests.Session().get(url)
        except Exception:
            logger.exception("Contracts: a page failed")


@shared_task
def update_status(url):
    answer = requests.Session().get(url)
    logger.info("Status: %d bytes", len(answer.content))


TIMEOUT = 0.2  # seconds of silence; take 10 for ESI


@shared_task
def update_status_or_give_up(url):
    answer = requests.get(url, timeout=TIMEOUT)
    logger.info("Status: %d bytes", len(answer.content))


@shared_task
def download_prices(url, seconds):
    deadline = time.monotonic() + seconds
    content = b""
    with requests.get(url, timeout=TIMEOUT, stream=True) as answer:
        while piece := answer.raw.read1(decode_content=True):
            content += piece
            if time.monotonic() > deadline:
                raise TimeoutError(f"the prices did not come within {seconds} s")
    logger.info("Prices: %d bytes", len(content))


@shared_task
def update_structures(structure_ids, seconds):
    deadline = time.monotonic() + seconds
    for count, structure_id in enumerate(structure_ids, start=1):
        time.sleep(0.02)  # stands for the request to ESI
        logger.info("Structure %d updated", structure_id)
        if time.monotonic() > deadline and structure_ids[count:]:
            update_structures.delay(structure_ids[count:], seconds)
            break


@shared_task
def render_map(command, seconds):
    subprocess.run(command, timeout=seconds, check=True)
    logger.info("Map rendered")


STOP = "time_limits.stop"


@shared_task
def update_corporations(corporation_ids):
    for corporation_id in corporation_ids:
        if cache.get(STOP):
            logger.info("Stopped before corporation %d", corporation_id)
            break
        time.sleep(0.05)  # stands for the request to ESI
        logger.info("Corporation %d updated", corporation_id)


@shared_task
def update_member(character_id):
    logger.info("Member %d updated", character_id)


@shared_task(name="discord.time_limits_announce")
def announce(structure_id):
    logger.info("Announced structure %d", structure_id)
