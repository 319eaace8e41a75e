"""The Kubernetes operator: turns an AliseEngine into a Deployment, a Service and a route, and reports their state in its status.

The other rooms never import it, and it imports only alise_contract of them. ARCHITECTURE.md maps concepts to its files.
"""
