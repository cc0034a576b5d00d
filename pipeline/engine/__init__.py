"""Work over shards: plan, window, run state, progress, Beam."""
