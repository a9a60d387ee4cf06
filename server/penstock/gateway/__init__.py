"""The edge: bytes to requests and back. HTTP routes, gRPC framing, tensor codecs, and the two fronts."""
