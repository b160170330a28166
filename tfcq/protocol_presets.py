"""Published training settings of each protocol. Needs no TensorFlow."""

from tfcq.settings import OptimizationSettings

# The first of a protocol is its default.
PRESETS: dict[str, dict[str, OptimizationSettings]] = {
    "linear": {
        "standardized": OptimizationSettings(
            epochs=60, batch_size=256, learning_rate=0.1, weight_decay=0.0
        ),
        # SSQL, Sec. 4.1.
        "ssql": OptimizationSettings(
            epochs=100,
            batch_size=256,
            learning_rate=30.0,
            learning_rate_schedule="step",
            milestones="60epochs,80epochs",
            weight_decay=0.0,
        ),
        # SimSiam (Chen and He, 2021), Appendix A.
        "simsiam": OptimizationSettings(
            epochs=90,
            batch_size=4096,
            optimizer="lars",
            learning_rate=0.02,
            scale_learning_rate=True,
            weight_decay=0.0,
        ),
        # Contrastive Quant, Appendix A.
        "contrastive_quant_cifar": OptimizationSettings(
            epochs=50, batch_size=512, learning_rate=0.1, weight_decay=0.0
        ),
        "contrastive_quant_imagenet": OptimizationSettings(
            epochs=90, batch_size=512, learning_rate=0.2, nesterov=True, weight_decay=0.0
        ),
    },
    "finetune": {
        # SSQL, Sec. 4.1.
        "ssql": OptimizationSettings(
            epochs=50,
            batch_size=256,
            learning_rate=0.001,
            learning_rate_schedule="step",
            milestones="30epochs,40epochs",
            weight_decay=1e-4,
        ),
    },
    "semi": {
        # Contrastive Quant, Appendix A, which names no batch size for CIFAR.
        "contrastive_quant_cifar": OptimizationSettings(
            epochs=50, batch_size=128, learning_rate=0.1, weight_decay=0.0
        ),
        "contrastive_quant_imagenet_10": OptimizationSettings(
            epochs=30, batch_size=512, learning_rate=0.1, nesterov=True, weight_decay=0.0
        ),
        "contrastive_quant_imagenet_1": OptimizationSettings(
            epochs=60, batch_size=512, learning_rate=0.1, nesterov=True, weight_decay=0.0
        ),
    },
    "qat": {
        # SSQL, Appendix ("Training details for LSQ").
        "ssql": OptimizationSettings(
            epochs=50,
            batch_size=256,
            learning_rate=0.001,
            learning_rate_schedule="step",
            milestones="30epochs",
            weight_decay=1e-5,
        ),
    },
}
