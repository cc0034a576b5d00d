"""What a corpus on disk is: tables, shards, manifests, and how they are committed."""
