"""`python -m lab.pages.built -f FILE`: serve the cells of a page that is built."""

import sys

from lab.pages.session import Session, start

sys.exit(start(Session, "lab.pages.built.kernel.BuildKernel"))
