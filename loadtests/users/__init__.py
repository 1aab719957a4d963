"""Locust users: each kind of client that the system has.

Importing a module here makes gRPC cooperative first: gevent has already replaced the sockets.
"""

from __future__ import annotations

import grpc.experimental.gevent as grpc_gevent

grpc_gevent.init_gevent()
