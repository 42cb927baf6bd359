"""The generated stubs of the contract in proto/semroute/v1."""
