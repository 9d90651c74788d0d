"""The version, once; the packaging reads it too."""

VERSION = "0.1.0"
