"""Reads: a study goes in, findings come out. Nothing here has ever heard of the node."""
