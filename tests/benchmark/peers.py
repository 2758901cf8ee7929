"""One peer over one raster, in the peers' environment: prints its figures as a line of JSON.

Each runs at the settings that are fastest for it here: no hidden upscaling (its transformation is told the size of the
tiles), no more overlap than its own default, both cores. Its network is torchvision's RetinaNet with a ResNet-50 and
random weights, which find next to nothing, so that the peers pay hardly anything for merging. Importing and building
the network are not timed.
"""

import argparse
import contextlib
import functools
import json
import resource
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from unittest import mock

import geopandas as gpd
import numpy as np
import rasterio
import shapely
import torch
from torchvision.models import detection

TILE_PX = 512
"""Faster than DeepForest's 400 and than 1024, by measurement."""


def network() -> torch.nn.Module:
    """RetinaNet with random weights, which takes tiles as they are."""
    torch.manual_seed(0)
    return detection.retinanet_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=2, min_size=TILE_PX, max_size=TILE_PX
    ).eval()


def sahi(device: str) -> Callable[[str], int]:
    """Sliced prediction, 20% overlap, boxes merged; then to the raster's coordinates."""
    from sahi import AutoDetectionModel
    from sahi.predict import get_sliced_prediction

    model = AutoDetectionModel.from_pretrained(
        model_type="torchvision",
        model=network(),
        confidence_threshold=0.3,
        device=device,
        category_mapping={"0": "none", "1": "unit"},
        image_size=TILE_PX,
    )

    def run(path: str) -> int:
        with rasterio.open(path) as raster:
            image = raster.read().transpose(1, 2, 0)
            found = get_sliced_prediction(image, model, slice_height=TILE_PX, slice_width=TILE_PX, verbose=0)
            boxes = np.array([item.bbox.to_xyxy() for item in found.object_prediction_list]).reshape(-1, 4)
            return len(_polygons(raster, boxes))

    return run


def deepforest(device: str) -> Callable[[str], int]:
    """`predict_tile` by windows, 5% overlap, boxes merged; then to the raster's coordinates."""
    from deepforest import main
    from deepforest.models.retinanet import RetinaNetHub

    # Told to take no weights, it still leaves torchvision's default in place: the backbone's, by download.
    bare = functools.partial(detection.retinanet_resnet50_fpn, weights_backbone=None)
    torch.manual_seed(0)
    with mock.patch.object(detection, "retinanet_resnet50_fpn", bare):
        net = RetinaNetHub(num_classes=1, min_size=TILE_PX, max_size=TILE_PX)
    accelerator = "cpu" if device == "cpu" else "gpu"
    model = main.deepforest(
        model=net, config_args={"num_classes": 1, "workers": 0, "accelerator": accelerator, "batch_size": 1}
    )
    # Without it a tile in which something is found ends the run.
    model.set_labels({"Tree": 0})
    model.create_trainer(logger=False, enable_progress_bar=False, enable_model_summary=False)

    def run(path: str) -> int:
        found = model.predict_tile(
            path, patch_size=TILE_PX, patch_overlap=0.05, iou_threshold=0.15, dataloader_strategy="window"
        )
        with rasterio.open(path) as raster:
            none = found is None or len(found) == 0
            boxes = np.zeros((0, 4)) if none else found[["xmin", "ymin", "xmax", "ymax"]].to_numpy()
            return len(_polygons(raster, boxes))

    return run


def torchgeo(device: str) -> Callable[[str], int]:
    """`GridGeoSampler` with tiles side by side, read by one process ahead; boxes to the raster's coordinates."""
    import warnings

    from torch.utils.data import DataLoader
    from torchgeo.datasets import RasterDataset, stack_samples
    from torchgeo.samplers import GridGeoSampler, Units

    warnings.filterwarnings("ignore")
    net = network().to(device)

    def run(path: str) -> int:
        data = RasterDataset(path)
        sampler = GridGeoSampler(data, size=TILE_PX, stride=TILE_PX, units=Units.PIXELS)
        found = []
        with torch.inference_mode():
            for batch in DataLoader(data, sampler=sampler, batch_size=1, collate_fn=stack_samples, num_workers=1):
                found += [result["boxes"].cpu().numpy() for result in net(list(batch["image"].to(device) / 255))]
        with rasterio.open(path) as raster:
            return len(_polygons(raster, np.concatenate(found)))

    return run


def _polygons(raster: rasterio.DatasetReader, boxes: np.ndarray) -> gpd.GeoDataFrame:
    west, north = raster.transform @ (boxes[:, 0], boxes[:, 1])
    east, south = raster.transform @ (boxes[:, 2], boxes[:, 3])
    return gpd.GeoDataFrame(geometry=shapely.box(west, south, east, north), crs=raster.crs)


PEERS = {"sahi": sahi, "deepforest": deepforest, "torchgeo": torchgeo}


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("raster")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    with rasterio.open(arguments.raster) as raster:
        pixels = raster.width * raster.height
    # The libraries print what they are doing; standard output is for the figures alone.
    with contextlib.redirect_stdout(sys.stderr), torch.no_grad():
        run = PEERS[arguments.peer](arguments.device)
        start = time.perf_counter()
        polygons = run(arguments.raster)
        seconds = time.perf_counter() - start
    figures = {
        "who": f"{arguments.peer} {version(arguments.peer)}",
        "mpx_per_s": pixels / seconds / 1e6,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "polygons": polygons,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
