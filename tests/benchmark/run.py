"""`make bench`: Overwatt and its peers over one scene, in turn, and what each makes of a count at seams.

Writes the scene once, runs everything as whole processes, interleaved, and prints the medians as tables in Markdown.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from scene import write_scene

HERE = Path(__file__).resolve().parent
PEERS = ("sahi", "deepforest", "torchgeo")
SEAM_PEERS = ("sahi", "deepforest", "rastervision")


def figures_of(command: list[str]) -> list[dict[str, Any]]:
    """The lines of JSON a command prints; what it says on stderr goes on to the terminal."""
    root = HERE.parents[1]
    environment = os.environ | {"PYTHONPATH": str(root), "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment, cwd=root)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def speed(scene: Path, peers: Path | None, runs: int, device: str) -> None:
    """Print throughput and memory, the ceilings beside them, and where our time goes."""
    on = ["--device", device]
    commands = {"overwatt": [sys.executable, str(HERE / "ours.py"), str(scene), *on]}
    if peers is not None:
        commands |= {name: [str(peers), str(HERE / "peers.py"), name, str(scene), *on] for name in PEERS}
    seen: dict[str, list[dict[str, Any]]] = defaultdict(list)
    ceilings = []
    for run in range(runs):
        for name, command in commands.items():
            seen[name] += figures_of(command)
            print(f"run {run + 1} of {runs}, {name}: {seen[name][-1]['mpx_per_s']:.2f} Mpx/s", file=sys.stderr)
        ceilings += figures_of([sys.executable, str(HERE / "ceilings.py"), str(scene), *on])

    def median(name: str, figure: str) -> float:
        return statistics.median(one[figure] for one in seen[name])

    ours = median("overwatt", "mpx_per_s")
    print(f"\n{cpu()}, {os.cpu_count()} cores, on {ceilings[0]['device']}; medians of {runs} interleaved runs over")
    print(f"{scene.name}, a rendered scene\n")
    print("| | Mpx/s end to end | Overwatt is faster by | peak RSS, MB |\n|---|---|---|---|")
    for name, figures in seen.items():
        factor = "" if name == "overwatt" else f"{ours / median(name, 'mpx_per_s'):.1f}"
        speed_of, memory = median(name, "mpx_per_s"), median(name, "peak_rss_mb")
        print(f"| {figures[0]['who']} | {speed_of:.2f} | {factor} | {memory:.0f} |")
    ceiling = {
        key: statistics.median(one[key] for one in ceilings)
        for key, value in ceilings[0].items()
        if isinstance(value, float)
    }
    allowed = ceiling["convolution_flops"] / ceiling["flop_per_px"] / 1e6
    print(f"\nConvolutions reach {ceiling['convolution_flops'] / 1e12:.3f} TFLOP/s ({ceilings[0]['precision']}); the")
    print(f"network takes {ceiling['flop_per_px'] / 1e3:.1f} kFLOP a pixel, so at most {allowed:.1f} Mpx/s; Overwatt")
    print(
        f"reaches {ours / allowed:.0%} of that end to end, the network alone {ceiling['network_mpx_per_s']:.1f} Mpx/s."
    )
    print(f"A thread decodes {ceiling['decode_mpx_per_s_a_thread']:.0f} Mpx/s, reads", end=" ")
    print(f"{ceiling['read_mpx_per_s_a_thread']:.0f} in windows with their halo, and", end=" ")
    print(f"{ceiling['read_and_resample_mpx_per_s_a_thread']:.0f} where every pixel is resampled.")
    print("\n| step | seconds |\n|---|---|")
    for step in seen["overwatt"][0]["seconds"]:
        print(f"| {step} | {statistics.median(one['seconds'][step] for one in seen['overwatt']):.2f} |")


def seams(peers: Path | None) -> None:
    """Print what a perfect detector's count becomes."""
    rows = figures_of([sys.executable, str(HERE / "seams.py"), "overwatt"])
    if peers is not None:
        for name in SEAM_PEERS:
            rows += figures_of([str(peers), str(HERE / "seams.py"), name])
    table: dict[str, dict[int, float]] = defaultdict(dict)
    for row in rows:
        windows = f", windows of {row['windows_px']} px" if "windows_px" in row else ""
        table[f"{row['who']}{windows}"][row["angle_deg"]] = row["error_percent"]
    angles = sorted({row["angle_deg"] for row in rows})
    print(f"\n{rows[0]['true']} units, a detector without error in every tile; error of the count, rows turned by:\n")
    print("| | " + " | ".join(f"{angle} deg" for angle in angles) + " |")
    print("|---" * (len(angles) + 1) + "|")
    for who, errors in table.items():
        print(f"| {who} | " + " | ".join(f"{errors[angle]:+.1f}%" for angle in angles) + " |")
    largest = max(row.get("max_position_error_px", 0.0) for row in rows)
    print(f"\nOverwatt's largest error of a place: {largest:.4f} px.")


def memory(folder: Path, device: str) -> None:
    """Print peak RSS for a raster of 8,000 and of 40,000 pixels a side."""
    print("\n| raster | Mpx/s | peak RSS, MB |\n|---|---|---|")
    for side in (8_000, 40_000):
        scene = scene_of(folder, side)
        figures = figures_of([sys.executable, str(HERE / "ours.py"), str(scene), "--device", device])[0]
        print(f"| {side} x {side} | {figures['mpx_per_s']:.2f} | {figures['peak_rss_mb']:.0f} |")


def scene_of(folder: Path, side: int) -> Path:
    """The scene of that size, written if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"rendered-{side}.tif"
    if not path.exists():
        print(f"writing {path}", file=sys.stderr)
        write_scene(path, side)
    return path


def cpu() -> str:
    """Name of the processor, and whether it multiplies bfloat16 in tiles."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    name = next(line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name"))
    kind = "AMX" if "amx_bf16" in text else "AVX512-BF16 without AMX" if "avx512_bf16" in text else "no bfloat16"
    return f"{name} ({kind})"


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(".bench"), help="where scenes are kept")
    parser.add_argument("--peers", type=Path, help="Python of the peers' environment; without it, Overwatt alone")
    parser.add_argument("--side", type=int, default=8192)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--device", default="cpu", help="for Overwatt and its peers: cpu or cuda")
    parser.add_argument("--only", choices=["speed", "seams", "memory"])
    arguments = parser.parse_args()
    if arguments.only in (None, "speed"):
        speed(scene_of(arguments.folder, arguments.side), arguments.peers, arguments.runs, arguments.device)
    if arguments.only in (None, "seams"):
        seams(arguments.peers)
    if arguments.only in (None, "memory"):
        memory(arguments.folder, arguments.device)


if __name__ == "__main__":
    main()
