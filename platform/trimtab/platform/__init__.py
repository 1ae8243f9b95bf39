"""The nouns and the machinery of Trimtab: records, cluster model, store, engine, planner, applier, Ray runtime."""
