"""An upstream that fails on purpose, for tests and for trying out a profile."""

from semroute_service.faults.answers import whole
from semroute_service.faults.catalogue import FAULTS, RANDOM, UnknownFaultError, parse
from semroute_service.faults.journal import Received, fingerprint
from semroute_service.faults.server import FaultServer, fault_server

__all__ = [
    "FAULTS",
    "RANDOM",
    "FaultServer",
    "Received",
    "UnknownFaultError",
    "fault_server",
    "fingerprint",
    "parse",
    "whole",
]
