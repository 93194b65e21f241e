"""Serving on Ray Serve: replicas that hold models and sessions, and the web app as their door."""
