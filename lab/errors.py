"""The one exception whose message is meant for the person at the keyboard."""


class LabError(Exception):
    """One clear sentence: what is wrong, where, and the remedy."""
