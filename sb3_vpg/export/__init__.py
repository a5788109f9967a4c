"""
Trained agents as files of their own: one ONNX file or one program of torch that takes the environment's raw observations and
returns actions as the environment takes them.

Writing and playing ONNX files needs the extra ``export``: ``pip install 'sb3-vpg[export]'``.
"""

from sb3_vpg.export.api import export
from sb3_vpg.export.onnx_player import OnnxPlayer

__all__ = ["OnnxPlayer", "export"]
