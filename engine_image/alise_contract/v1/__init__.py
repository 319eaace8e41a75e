"""Generated from the .proto files beside it by `make proto`; a test says when it is stale."""
