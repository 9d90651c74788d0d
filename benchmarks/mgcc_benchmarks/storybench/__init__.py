"""StoryBench: held-back stories are drawn, a reader finds the objects in each picture, and scores compare them."""
