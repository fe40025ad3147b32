"""The bench that the examples' tests stand on: the `lab` fixture comes from the plugin in `lab/plugin.py`."""
