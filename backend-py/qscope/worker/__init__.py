"""The worker: gRPC services over run folders, and the supervision of job processes. No mathematics."""

#: "major.minor"; the command line refuses another major.
PROTOCOL_VERSION = "1.0"
