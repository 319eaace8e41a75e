"""What the sidecar serves: admission and health on unix sockets, metrics and status over HTTP."""
