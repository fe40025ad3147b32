"""The kernel of a page that is built: a cell ends when all that it sent has ended, and the worker's log follows it."""
