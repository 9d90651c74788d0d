"""From a job to its picture: what may be asked for, the queue, the one worker, and what it tells meanwhile."""
