"""`python -m lab.pages.live -f FILE`: serve the cells of a live page."""

import sys

from lab.pages.live.session import LiveSession
from lab.pages.session import start

sys.exit(start(LiveSession, "lab.pages.live.kernel.LiveKernel"))
