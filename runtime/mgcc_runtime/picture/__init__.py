"""A picture from what was read: conditioning, phrase embeddings, denoising."""
