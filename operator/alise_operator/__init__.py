"""The Kubernetes operator: turns an AliseEngine into a Deployment, a Service and a route, and says how they are."""
