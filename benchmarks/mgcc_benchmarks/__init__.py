"""What MGCC Edge is measured with: StoryBench here, one file a question beside this package."""
