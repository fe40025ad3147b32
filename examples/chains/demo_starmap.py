from chains.tasks import update_wallet

update_wallet.starmap([(98000001,), (1000035,), (98000003,)]).delay()
