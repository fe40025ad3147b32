"""The kernel of a live page: what it runs streams, can be stopped, and survives the end of its worker."""
