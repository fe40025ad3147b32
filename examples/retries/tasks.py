import time

import requests
import urllib3
from allianceauth.services.hooks import get_extension_logger
from allianceauth.services.tasks import QueueOnce
from celery import shared_task
from celery.exceptions import Retry
from django.core.cache import cache
from esi.decorators import rate_limit_retry_task
from esi.exceptions import ESIErrorLimitException

logger = get_extension_logger(__name__)


class TryLater(Exception):
    """A later attempt may succeed; `wait` is how many seconds the server asks for, 0 if it does not say."""

    def __init__(self, reason, wait=0):
        super().__init__(reason)
        self.wait = wait


def fetch(url, timeout=10):
    try:
        response = requests.get(url, timeout=timeout)
    except (requests.ConnectionError, requests.Timeout) as error:
        raise TryLater("no answer") from error
    if response.status_code in (420, 429, 502, 503, 504):
        raise TryLater(f"status {response.status_code}", asked_for(response.headers))
    response.raise_for_status()
    return response.json()


def asked_for(headers):
    value = headers.get("Retry-After") or headers.get("X-ESI-Error-Limit-Reset") or "0"
    return urllib3.util.Retry(retry_after_max=600).parse_retry_after(value)


@shared_task(bind=True, autoretry_for=(TryLater,), max_retries=5, retry_backoff=True)
def update_corporation(self, corporation_id, esi):
    logger.info("Corporation %s: attempt %s", corporation_id, self.request.retries + 1)
    corporation = fetch(f"{esi}/corporations/{corporation_id}")
    logger.info("Updated %s", corporation["name"])


@shared_task(autoretry_for=(TryLater,), max_retries=5, retry_backoff=60, retry_jitter=False)
def update_character(character_id, esi):
    fetch(f"{esi}/characters/{character_id}")


@shared_task(bind=True, autoretry_for=(TryLater,), max_retries=5, retry_backoff=True)
def update_wallet(self, corporation_id, esi):
    try:
        wallet = fetch(f"{esi}/wallets/{corporation_id}")
    except TryLater as error:
        if error.wait:
            raise self.retry(exc=error, countdown=error.wait) from error
        raise
    logger.info("Updated %s", wallet["name"])


@shared_task(autoretry_for=(TryLater,), retry_backoff=3600, retry_jitter=False)
def update_contracts(corporation_id, esi):
    fetch(f"{esi}/contracts/{corporation_id}")


@shared_task(autoretry_for=(Exception,), default_retry_delay=0.1)
def update_members(corporation_id, esi):
    fetch(f"{esi}/members/{corporation_id}")


@shared_task(bind=True, retry_backoff=5)
def update_roles(self, corporation_id, esi):
    try:
        fetch(f"{esi}/roles/{corporation_id}")
    except TryLater as error:
        raise self.retry() from error


@shared_task(bind=True)
def update_titles(self, corporation_id, esi):
    try:
        try:
            titles = fetch(f"{esi}/titles/{corporation_id}")
        except TryLater as error:
            raise self.retry(countdown=0.2) from error
        logger.info("Updated %s", titles["name"])
    except Exception:
        logger.error("The titles of %s are not updated", corporation_id)


@shared_task(bind=True)
def update_medals(self, corporation_id, esi):
    try:
        try:
            medals = fetch(f"{esi}/medals/{corporation_id}")
        except TryLater as error:
            raise self.retry(countdown=0.2) from error
        logger.info("Updated %s", medals["name"])
    except Retry:
        raise
    except Exception:
        logger.error("The medals of %s are not updated", corporation_id)


@shared_task(autoretry_for=(TryLater,), max_retries=None, default_retry_delay=0.2)
def update_loyalty(corporation_id, esi):
    loyalty = fetch(f"{esi}/loyalty/{corporation_id}")
    logger.info("Updated %s", loyalty["name"])


@shared_task
def report_end(corporation_id):
    logger.info("Corporation %s is done", corporation_id)


@shared_task(bind=True, max_retries=5)
def update_each(self, corporation_ids, esi):
    for corporation_id in corporation_ids:
        try:
            corporation = fetch(f"{esi}/corporations/{corporation_id}")
        except TryLater as error:
            raise self.retry(exc=error, countdown=error.wait or 60) from error
        logger.info("Updated %s", corporation["name"])


@shared_task(bind=True, max_retries=5)
def update_rest(self, corporation_ids, esi):
    for number, corporation_id in enumerate(corporation_ids):
        try:
            corporation = fetch(f"{esi}/corporations/{corporation_id}")
        except TryLater as error:
            rest = corporation_ids[number:]
            raise self.retry(args=[rest, esi], exc=error, countdown=error.wait or 60) from error
        logger.info("Updated %s", corporation["name"])


@shared_task(bind=True, max_retries=5)
def update_all(self, corporation_ids, esi):
    try:
        fetch(f"{esi}/status")
    except TryLater as error:
        raise self.retry(exc=error, countdown=error.wait or 60) from error
    for corporation_id in corporation_ids:
        update_corporation.delay(corporation_id, esi)


GATE = "retries_told_to_wait"


def fetch_unless_told_to_wait(url):
    left = cache.pttl(GATE) / 1000
    if left:
        raise TryLater("another task was told to wait", left)
    try:
        return fetch(url)
    except TryLater as error:
        cache.set(GATE, "", timeout=error.wait or 60)
        raise


@shared_task(bind=True, max_retries=10)
def update_assets(self, corporation_id, esi):
    try:
        assets = fetch_unless_told_to_wait(f"{esi}/assets/{corporation_id}")
    except TryLater as error:
        raise self.retry(exc=error, countdown=error.wait or 60) from error
    logger.info("Updated %s", assets["name"])


@shared_task(autoretry_for=(TryLater,))
def update_orders(corporation_id, esi):
    timeout = None
    fetch(f"{esi}/orders/{corporation_id}", timeout)


@shared_task(autoretry_for=(TryLater,), retry_backoff=True)
def update_jobs(corporation_id, esi, timeout=10):
    jobs = fetch(f"{esi}/jobs/{corporation_id}", timeout)
    logger.info("Updated %s", jobs["name"])


@shared_task
def update_fleet(fleet_id, esi):
    try:
        fetch(f"{esi}/fleets/{fleet_id}")
    except TryLater as error:
        time.sleep(error.wait)
        fetch(f"{esi}/fleets/{fleet_id}")


@shared_task(bind=True, max_retries=5)
def update_standings(self, corporation_id, esi):
    try:
        standings = fetch(f"{esi}/standings/{corporation_id}")
    except TryLater as error:
        raise self.retry(exc=error, countdown=0.1, priority=9) from error
    logger.info("Updated %s with priority %s", standings["name"], self.request.delivery_info["priority"])


@shared_task(base=QueueOnce, autoretry_for=(TryLater,), max_retries=10, retry_backoff=True, retry_jitter=False)
def update_killmails(corporation_id, esi):
    killmails = fetch(f"{esi}/killmails/{corporation_id}")
    logger.info("Updated %s", killmails["name"])


@shared_task(bind=True)
@rate_limit_retry_task
def update_blueprints(self, corporation_id):
    # Stands for what django-esi's client raises where ESI answers 420.
    if self.request.retries == 0:
        raise ESIErrorLimitException(reset=0.5)
    logger.info("Updated the blueprints of %s", corporation_id)
