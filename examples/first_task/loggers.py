import logging

from allianceauth.services.hooks import get_extension_logger
from celery import shared_task
from celery.utils.log import get_task_logger


@shared_task
def compare_loggers():
    for get in (get_extension_logger, get_task_logger, logging.getLogger):
        logger = get(__name__)
        logger.debug("a debug line of %s", get.__name__)
        logger.info("an info line of %s", get.__name__)
        logger.warning("a warning of %s", get.__name__)
    print("a printed line")
