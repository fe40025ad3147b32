"""`python -m lab.pages.live -f FILE`: serve the cells of a live page."""

import sys
from functools import partial

from lab.errors import told
from lab.pages.live.session import LiveSession
from lab.pages.session import start

sys.exit(told(partial(start, LiveSession, "lab.pages.live.kernel.LiveKernel")))
