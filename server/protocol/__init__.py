"""The Open Inference Protocol: messages to numpy arrays and back."""
