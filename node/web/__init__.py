"""The node's own web server: /health for whoever watches, and later the REST API and the dashboard."""
