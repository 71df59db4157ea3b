"""The networks. Read `variants` (the table), `backbone`, `neck`, `head`, then `yolo` (assembled)."""

from detector.models.backbone import CSPDarknet
from detector.models.head import YOLOHead
from detector.models.neck import CSPPANet
from detector.models.variants import VARIANTS, Variant
from detector.models.yolo import YOLO

__all__ = ["VARIANTS", "CSPDarknet", "CSPPANet", "Variant", "YOLO", "YOLOHead"]
