"""The same server on Ray Serve (extra `scale`): several replicas, on one machine or more, behind one address."""
