"""ML Metadata's gRPC service over the C++ store that PyPI's ml-metadata carries.

No registry has the server that Kubeflow Pipelines comes with. This front hands each serialized
request of the genuine service definition to the store's function of the same name, and the
serialized answer back. Runs under Python 3.11, in an environment of its own.
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
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--host", required=True, help="of the MySQL database")
    parser.add_argument("--database", default="metadb")
    parser.add_argument("--user", default="root", help="its password is in $MYSQL_PASSWORD")
    serve(parser.parse_args())


def serve(options: argparse.Namespace) -> None:
    """Answer on ``options.port``, with the database behind it."""
    server = grpc.server(ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((service(open_store(options)),))
    server.add_insecure_port(f"0.0.0.0:{options.port}")
    server.start()
    server.wait_for_termination()


def open_store(options: argparse.Namespace) -> Any:
    """Connect, and create the tables where they are missing.

    Raises:
        RuntimeError: The database is away for a minute.
    """
    config = metadata_store_pb2.ConnectionConfig()
    config.mysql.host = options.host
    config.mysql.port = 3306
    config.mysql.database = options.database
    config.mysql.user = options.user
    config.mysql.password = os.environ.get("MYSQL_PASSWORD", "")
    migration = metadata_store_pb2.MigrationOptions(enable_upgrade_migration=True)
    end = time.monotonic() + 60
    while True:
        try:
            return store.CreateMetadataStore(
                *(part.SerializeToString() for part in (config, migration))
            )
        except RuntimeError:
            if time.monotonic() > end:
                raise
            time.sleep(0.5)


def service(connection: Any) -> grpc.GenericRpcHandler:
    """Handlers for every method of the service that the store has."""
    lock = threading.Lock()  # the store has one connection
    methods = [method.name for method in SERVICE.methods if hasattr(store, method.name)]
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(answer(getattr(store, name), connection, lock))
        for name in methods
    }
    return grpc.method_handlers_generic_handler(SERVICE.full_name, handlers)


def answer(
    call: Callable[[Any, bytes], tuple[bytes, bytes, int]], connection: Any, lock: threading.Lock
) -> Callable[[bytes, grpc.ServicerContext], bytes]:
    """A handler that calls the store, again when the database gave up a transaction."""

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
