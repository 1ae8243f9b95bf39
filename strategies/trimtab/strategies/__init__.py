"""What could be done: goals, strategies and their kernels, as pure functions of a snapshot."""
