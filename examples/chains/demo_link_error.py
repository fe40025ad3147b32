from celery import chain

from chains.tasks import note_failure, update_wallet

watched = update_wallet.si(1000035).on_error(note_failure.s())
chain(update_wallet.si(98000001), watched).delay()
chain(update_wallet.si(1000044), watched).delay()
