"""Tests of the lab and of the built site."""
