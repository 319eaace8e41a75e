"""What the operator, the sidecar and the engine agree on: names, quantities and protobufs. Imports no other room."""
