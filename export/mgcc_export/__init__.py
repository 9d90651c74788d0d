"""Export of the reference, stage by stage, to a bundle that the runtime loads."""
