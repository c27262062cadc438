"""What does a run become before it is replayed? A schedule, a split of the layers and a plan."""
