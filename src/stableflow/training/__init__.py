"""The whole recipe of the bundled model: data, autoencoder, flow transformer, guidance distillation, classifier.

Used by nobody but the command line.
"""
