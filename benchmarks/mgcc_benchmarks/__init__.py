"""The benchmarks of MGCC Edge; their commands are the files beside this package."""
