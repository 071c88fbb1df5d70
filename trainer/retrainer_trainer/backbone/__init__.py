"""The frozen network: its weights, the engine that runs it, and the loop over the images."""
