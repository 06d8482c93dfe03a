"""ML Metadata's gRPC service on top of the C++ store in PyPI's ml-metadata.

No package registry provides the server of Kubeflow Pipelines. This server passes each serialised
request of the original service definition to the store's function of the same name, and returns the
serialised response. It runs under Python 3.11 in a separate environment.
"""

import argparse
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from ml_metadata.metadata_store.pywrap.metadata_store_extension import metadata_store as store
from ml_metadata.proto import metadata_store_pb2, metadata_store_service_pb2

SERVICE = metadata_store_service_pb2.DESCRIPTOR.services_by_name["MetadataStoreService"]
CODES = {code.value[0]: code for code in grpc.StatusCode}
ABORTED = grpc.StatusCode.ABORTED.value[0]


def main() -> None:
    """Serve until the process is terminated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--host", required=True, help="host of the MySQL database")
    parser.add_argument("--database", default="metadb")
    parser.add_argument("--user", default="root", help="the password is read from $MYSQL_PASSWORD")
    serve(parser.parse_args())


def serve(options: argparse.Namespace) -> None:
    """Serve on ``options.port`` with the database as storage."""
    server = grpc.server(ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((service(open_store(options)),))
    server.add_insecure_port(f"0.0.0.0:{options.port}")
    server.start()
    server.wait_for_termination()


def open_store(options: argparse.Namespace) -> Any:
    """Connect to the database and create missing tables.

    Raises:
        RuntimeError: The database was unreachable for a minute.
    """
    config = metadata_store_pb2.ConnectionConfig()
    config.mysql.host = options.host
    config.mysql.port = 3306
    config.mysql.database = options.database
    config.mysql.user = options.user
    config.mysql.password = os.environ.get("MYSQL_PASSWORD", "")
    migration = metadata_store_pb2.MigrationOptions(enable_upgrade_migration=True)
    deadline = time.monotonic() + 60
    while True:
        try:
            return store.CreateMetadataStore(
                *(part.SerializeToString() for part in (config, migration))
            )
        except RuntimeError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def service(connection: Any) -> grpc.GenericRpcHandler:
    """Handlers for every method of the service that the store implements."""
    lock = threading.Lock()  # the store has a single connection
    methods = [method.name for method in SERVICE.methods if hasattr(store, method.name)]
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(handler(getattr(store, name), connection, lock))
        for name in methods
    }
    return grpc.method_handlers_generic_handler(SERVICE.full_name, handlers)


def handler(
    call: Callable[[Any, bytes], tuple[bytes, bytes, int]], connection: Any, lock: threading.Lock
) -> Callable[[bytes, grpc.ServicerContext], bytes]:
    """A handler that calls the store, and retries when the database aborts the transaction."""

    def handle(request: bytes, context: grpc.ServicerContext) -> bytes:
        for _ in range(5):
            with lock:
                response, message, code = call(connection, request)
            if code != ABORTED:
                break
        if code:
            context.abort(CODES[code], message.decode())
        return response

    return handle


if __name__ == "__main__":
    main()
