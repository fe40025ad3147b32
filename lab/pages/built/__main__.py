"""`python -m lab.pages.built -f FILE`: serve the cells of a page that is built."""

import sys
from functools import partial

from lab.errors import told
from lab.pages.session import Session, start

sys.exit(told(partial(start, Session, "lab.pages.built.kernel.BuildKernel")))
