"""What experiments compare the predictor with. No image and no wheel holds this package; benchmarks and tests import it."""
