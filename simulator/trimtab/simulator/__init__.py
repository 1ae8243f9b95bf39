"""What would happen: discrete-event core, load, migration and power models, the simulated cloud, rehearsal and score."""
