"""VIST and VisDial, the paper's benchmarks: the next picture of a story or a dialogue against the true one.

Read are the official files. GILL's published code (arXiv 2305.17216), by which the paper compares itself, has rules of
its own; each is a named switch (`protocol.py`).
"""
