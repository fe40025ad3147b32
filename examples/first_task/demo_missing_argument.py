from first_task.tasks import count_members

try:
    count_members.delay()
except TypeError as error:
    print(error)
