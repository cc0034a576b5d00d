"""`python -m pipeline.sources.scenes`: see `pipeline.sources.scenes.source`."""

import sys

from pipeline.sources.scenes.source import main

if __name__ == "__main__":
    sys.exit(main())
