"""One file an action handler, named as on the wire; found through entry points."""
