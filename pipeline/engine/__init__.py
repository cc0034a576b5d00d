"""Work over shards: what a stage is, the window of items in work, run state, progress, Beam."""
