"""Post-training with SAE signals: the loss against code-switching, DAPO with rare negatives, their checks, graders."""
