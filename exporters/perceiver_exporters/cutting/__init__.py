"""Cut a whole PyTorch module into components: one traced program, partitioned where the latents allow it."""

from perceiver_exporters.cutting.cut import Cutting, cut_module

__all__ = ["Cutting", "cut_module"]
