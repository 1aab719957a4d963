"""From a MuseTalk checkpoint to a Triton model repository."""
