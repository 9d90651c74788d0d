"""The commands of `mgcc`; each module adds its own to the parser. They speak through `mgcc_runtime.console` alone."""
