"""Media: opening, checking, decoding and encoding of images, videos and precomputed features."""
