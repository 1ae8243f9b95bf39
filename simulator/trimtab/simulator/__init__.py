"""What would happen: event core, load, migration and power models, the simulated cloud, rehearsal, score."""
