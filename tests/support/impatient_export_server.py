"""An export server that soon gives up a request to the object storage that fails."""

from __future__ import annotations

from export_service.objects import bucket
from export_service.rpc.server import main

if __name__ == "__main__":
    bucket.RETRY_SECONDS = 0.5
    main()
