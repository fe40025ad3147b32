from celery import current_app

answers = current_app.control.inspect(timeout=5).active()
if not answers:
    print("no worker answers")
else:
    for worker, running in answers.items():
        print(f"{worker} runs {len(running)} tasks")
        for task in running:
            print(f"  {task['name']} {task['args']} {task['kwargs']}")
