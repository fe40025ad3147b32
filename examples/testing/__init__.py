"""The app of a reader, with tests of its own."""
