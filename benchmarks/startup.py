"""How long it takes to import keras_t2t beyond Keras, and to create T2TViT14 with random weights.

    python benchmarks/startup.py

Medians over five fresh processes.
"""

import statistics
import subprocess
import sys

CODE = """
import time
import keras
keras.ops.ones(1)
start = time.perf_counter()
import keras_t2t
imported = time.perf_counter()
keras_t2t.T2TViT14(weights=None)
print(imported - start, time.perf_counter() - imported)
"""


def main(runs=5):
    outputs = [
        subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True).stdout for _ in range(runs)
    ]
    imports, creations = zip(*(map(float, output.split()[-2:]) for output in outputs), strict=True)
    print(f"import keras_t2t, beyond keras: {statistics.median(imports):.2f} s")
    print(f"T2TViT14(weights=None):         {statistics.median(creations):.2f} s")


if __name__ == "__main__":
    main()
