"""The sidecar: predicts lengths, admits and ranks requests, plans whose KV stays on the device."""
