"""The web app: pages over the Python API, one queue before one model. How pictures are made is not decided here."""
