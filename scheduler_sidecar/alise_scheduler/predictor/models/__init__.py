"""What turns features into a distribution of lengths. Knows nothing of training, files or the network."""
