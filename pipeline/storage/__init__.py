"""Where a corpus is: a local folder, or a prefix of an object store. Both are paths.

    location("photos/corpus")      a `pathlib.Path`
    location("s3://team/corpus")   an `ObjectPath`: the same interface, for s3://, gs:// and az://

What a path cannot do is here: files that appear whole or not at all, compare and swap, and the lease of a run.
"""
