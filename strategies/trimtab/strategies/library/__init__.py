"""One file a strategy, named as on the wire; found through entry points."""
