"""The networks.

Read `variants` (the table), `backbone`, `neck`, `head`, then `yolo` (assembled) and `classifier`.
`adopted` has the classifiers of other packages. `darknet_weights` reads
and writes darknet's `.weights`; `darknet_cfg` parses its `.cfg` and `darknet_net` builds the network;
`info` measures parameters and FLOPs.
"""

from detector.models.adopted import ADOPTED, AdoptedClassifier, create_timm_network
from detector.models.backbone import CSPDarknet, TinyDarknet
from detector.models.classifier import BackboneClassifier, Classifier, PyramidClassifier
from detector.models.darknet_cfg import count_cfg_classes, parse_cfg, replace_cfg_classes
from detector.models.darknet_net import DarknetNet
from detector.models.darknet_weights import (
    DarknetSerializable,
    Header,
    LoadResult,
    file_size,
    list_layers,
    load_darknet,
    read_header,
    save_darknet,
    usual_order,
)
from detector.models.head import YOLOHead
from detector.models.info import StageCost, format_stages, measure_stages, stages_as_json
from detector.models.neck import CSPPANet, PANet, TinyNeck, YOLOv3Neck
from detector.models.variants import VARIANTS, Variant
from detector.models.yolo import YOLO

__all__ = [
    "ADOPTED",
    "VARIANTS",
    "AdoptedClassifier",
    "BackboneClassifier",
    "CSPDarknet",
    "CSPPANet",
    "Classifier",
    "DarknetNet",
    "Header",
    "LoadResult",
    "PANet",
    "PyramidClassifier",
    "StageCost",
    "DarknetSerializable",
    "TinyDarknet",
    "TinyNeck",
    "Variant",
    "YOLO",
    "YOLOHead",
    "YOLOv3Neck",
    "count_cfg_classes",
    "create_timm_network",
    "replace_cfg_classes",
    "file_size",
    "load_darknet",
    "measure_stages",
    "parse_cfg",
    "read_header",
    "save_darknet",
    "usual_order",
    "list_layers",
    "format_stages",
    "stages_as_json",
]
