"""Recorded load as series: what a trace is, and how traces of several formats are read."""
