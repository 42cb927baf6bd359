"""``python -m semroute_service.cli``: the ``semroute`` command."""

import sys

from semroute_service.cli import main

sys.exit(main())
