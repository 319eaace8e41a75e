"""Traces: one span of OpenTelemetry per request, with what happened to the request as events."""
