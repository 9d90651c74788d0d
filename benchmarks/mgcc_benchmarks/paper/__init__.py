"""VIST and VisDial, the paper's benchmarks: the next picture of a story or a dialogue against the true one.

The official files are read. The paper compares itself by GILL's published code (arXiv 2305.17216), which has rules of
its own; each is a named switch (`protocol.py`).
"""
