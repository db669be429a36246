"""What the cpu image must hold. Run inside it: `python3 /opt/tldr/verify.py [--json]`."""

from __future__ import annotations

import sys
from pathlib import Path

from containers.image_checks import STAGE_IMPORTS, Contract, main

CONTRACT = Contract(
    name="cpu",
    imports=STAGE_IMPORTS,
    torch="2.13.0+cpu",
    torch_cuda=None,
    versions={},
    variables={},
)

if __name__ == "__main__":
    sys.exit(main(CONTRACT, Path(__file__).with_name("requirements.lock")))
