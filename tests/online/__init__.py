"""Tests of Run on published pages: in Chromium, and the stand-ins against the real thing."""
