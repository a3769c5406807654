"""Runs in ModelOpt's environment, which does not need this project: `python modelopt_script.py JOB.json`.

The job has the model, the path of the result, the mode (`fp8` or `int4`), the nodes to quantise, the block size, and an
.npz of calibration inputs.
"""

import json
import sys
from pathlib import Path

import numpy as np


def main(path: str) -> None:
    """Quantise as the job says."""
    from modelopt.onnx.quantization import quantize

    job = json.loads(Path(path).read_text(encoding="utf-8"))
    with np.load(job["calibration"]) as file:
        calibration = {name: file[name] for name in file.files}
    fp8 = {"high_precision_dtype": "fp32", "disable_mha_qdq": True, "dq_only": True}
    int4 = {"calibration_method": "rtn_dq", "block_size": job["block"]}
    quantize(
        job["model"],
        quantize_mode=job["mode"],
        calibration_data=calibration,
        calibration_eps=["cpu"],
        op_types_to_quantize=["MatMul", "Gemm", "Conv"],
        nodes_to_quantize=job["nodes"],
        output_path=job["result"],
        **(fp8 if job["mode"] == "fp8" else int4),
    )


if __name__ == "__main__":
    main(sys.argv[1])
