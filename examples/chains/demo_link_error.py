from celery import chain

from chains.tasks import note_failure, update_wallet

watched = update_wallet.si(1000035).on_error(note_failure.s())
for number in (98000001, 1000044):
    chain(update_wallet.si(number), watched).delay()
