from celery import chain

from chains.tasks import update_wallet

results = {"task": update_wallet.delay(98000001)}
results["chain"] = chain(update_wallet.si(number) for number in (98000002, 98000003)).delay()
for name, result in results.items():
    for question in ("get", "ready", "state"):
        try:
            answer = getattr(result, question)
            print(f"{name}.{question}: {answer() if callable(answer) else answer}")
        except (NotImplementedError, AttributeError) as error:
            told = str(error).splitlines()[0]
            print(f"{name}.{question}: {type(error).__name__}: {told}")
