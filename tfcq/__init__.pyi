"""tfcq: quantization-friendly self-supervised learning for Keras."""

from tfcq.backbones.cifar_resnet import cifar_resnet as cifar_resnet
from tfcq.backbones.mobilenet_v2 import mobilenet_v2 as mobilenet_v2
from tfcq.backbones.resnet import resnet as resnet
from tfcq.backbones.vision_transformer import vision_transformer as vision_transformer
from tfcq.data.augmentation import Augmentation as Augmentation
from tfcq.data.user_images import two_views as two_views
from tfcq.deployment.tflite import int8_tflite as int8_tflite
from tfcq.detection.saved import load_detector as load_detector
from tfcq.evaluation.features import FeatureExtractor as FeatureExtractor
from tfcq.integer.form import deployable as deployable
from tfcq.nn.calibration import calibrate as calibrate
from tfcq.nn.float_model import float_model as float_model
from tfcq.nn.float_model import requantizable as requantizable
from tfcq.nn.quantizable import quantizable as quantizable
from tfcq.nn.summary import summary as summary
from tfcq.pretraining.framework import Framework as Framework
from tfcq.pretraining.loading import load as load
from tfcq.pretraining.pretrainer import Pretrainer as Pretrainer
from tfcq.quantization.precision import Precision as Precision
from tfcq.quantization.precision import RecordRanges as RecordRanges
from tfcq.settings.bitwidths import BitWidth as BitWidth
from tfcq.settings.policies import Policy as Policy
from tfcq.training.lars import LARS as LARS

__version__: str
