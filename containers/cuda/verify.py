"""What the cuda image must hold. Run inside it: `python3 /opt/tldr/verify.py [--gpu] [--json]`."""

from __future__ import annotations

import sys
from pathlib import Path

from containers.image_checks import STAGE_IMPORTS, Contract, main

CONTRACT = Contract(
    name="cuda",
    imports=(*STAGE_IMPORTS, "vllm"),
    torch="2.13.0+cu130",
    torch_cuda="13.0",
    versions={"vllm": "0.31.0"},
    variables={"CUDA_VERSION": "13.0"},
)

if __name__ == "__main__":
    sys.exit(main(CONTRACT, Path(__file__).with_name("requirements.lock")))
