"""The networks of the paper, a file each, and the parts that they share."""
