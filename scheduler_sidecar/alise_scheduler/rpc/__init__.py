"""What this process serves: Admission and health over the pod's socket, metrics and status over HTTP."""
