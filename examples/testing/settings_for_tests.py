from myauth.settings.local import *

from .apart import apart

apart(globals())
