"""stepcast: predicts the step time, MFU and memory of large-model training on a cluster."""
