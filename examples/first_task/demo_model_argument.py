from kombu.exceptions import EncodeError

from first_task.models import Roster
from first_task.tasks import show_arguments

try:
    show_arguments.delay(Roster())
except EncodeError as error:
    print(error)
