"""Long jobs as many small results that survive being killed."""
