"""What is known of a request and its conversation, as numbers and hashes. Depends on nothing else of the predictor but `shares`."""
