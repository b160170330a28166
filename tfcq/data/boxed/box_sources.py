"""Opens any source of images with boxes by its name."""

from tfcq.data.boxed.annotated_folder import AnnotatedFolder
from tfcq.data.boxed.boxed_split import BoxedSource
from tfcq.data.boxed.boxes_folder import BoxesFolderSource
from tfcq.data.boxed.scenes import ScenesSource
from tfcq.data.holdout import HoldoutSource
from tfcq.data.sources import open_source
from tfcq.errors import UserError
from tfcq.settings import datasets


def open_boxes(
    dataset: str,
    data_dir: str | None = None,
    download: bool = False,
    masks: bool = False,
    strict: bool = True,
    holdout: float | None = None,
    holdout_seed: int = 0,
) -> BoxedSource:
    """Opens a data set with boxes by name.

    Args:
        dataset: `scenes` (of digits), `scenes:DATASET` with any labelled data set of one image
            size, `boxes:PATH`, `voc` or `coco`.
        data_dir: where TFDS data sets are prepared; None is TFDS's own default.
        download: whether TFDS may download what is not prepared.
        masks: whether masks are needed.
        strict: whether a box without area in a JSON is an error instead of being left out, which
            COCO's own files need.
        holdout: where there is no test split, share of the images, or of each class of items, that
            becomes one.
        holdout_seed: another seed holds out others.

    Raises:
        UserError: data without boxes or, where they are needed, without masks; a data set that is
            not prepared, or an argument that it has no use for.
    """
    datasets.check_boxed_name(dataset, masks)
    if dataset in datasets.BOXED_TFDS:
        if holdout is not None:
            datasets.check_holdout(dataset, ("train", "test"), holdout)
        from tfcq.data.boxed.tfds_boxes import TfdsBoxesSource

        return TfdsBoxesSource(dataset, data_dir, download)
    if dataset.startswith(datasets.BOXES_PREFIX):
        if data_dir is not None or download:
            raise UserError(
                f"Data set {dataset!r} has no use for data_dir={data_dir!r}, download={download};"
                " allowed: these with TensorFlow data sets only."
            )
        path = dataset.removeprefix(datasets.BOXES_PREFIX)
        return BoxesFolderSource(AnnotatedFolder(path, masks, strict, holdout, holdout_seed))
    items = open_source(
        dataset.removeprefix(datasets.SCENES).removeprefix(":") or datasets.DIGITS,
        data_dir, download,
    )  # fmt: skip
    if holdout is not None:
        items = HoldoutSource(items, holdout, holdout_seed)
    return ScenesSource(items, dataset)
