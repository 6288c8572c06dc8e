"""From an admitted request to its answer: queue, batches, deadlines."""
