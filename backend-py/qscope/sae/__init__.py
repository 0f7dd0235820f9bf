"""TopK sparse autoencoders: the mathematics, its fast paths, training, metrics and file formats."""
