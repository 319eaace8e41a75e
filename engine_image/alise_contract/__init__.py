"""What the operator, the sidecar and the engine agree on: names and protobufs, nothing else. Imports no other room."""
