"""The run-time type check of all tests: as Python's own rules have it, an int goes where a float is asked for."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
