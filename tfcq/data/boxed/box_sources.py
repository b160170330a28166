"""Opens any source of images with boxes by its name."""

from tfcq.data.boxed.boxed_split import BoxedSource
from tfcq.data.boxed.boxes_folder import BoxesFolderSource
from tfcq.data.boxed.scenes import ScenesSource
from tfcq.data.sources import open_source
from tfcq.errors import UserError
from tfcq.settings import datasets


def open_boxes(
    dataset: str,
    data_dir: str | None = None,
    download: bool = False,
    masks: bool = False,
    strict: bool = True,
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

    Raises:
        UserError: data without boxes or, where they are needed, without masks; a data set that is
            not prepared, or an argument that it has no use for.
    """
    datasets.check_boxed_name(dataset)
    if dataset in (datasets.VOC, datasets.COCO):
        if masks:
            raise UserError(
                f"Data set {dataset!r} of TensorFlow Datasets has no masks; allowed: scenes, or "
                "boxes:PATH with a COCO JSON, such as COCO's own files."
            )
        from tfcq.data.boxed.tfds_boxes import TfdsBoxesSource

        return TfdsBoxesSource(dataset, data_dir, download)
    if dataset.startswith(datasets.BOXES_PREFIX):
        if data_dir is not None or download:
            raise UserError(
                f"Data set {dataset!r} has no use for data_dir={data_dir!r}, download={download};"
                " allowed: these with TensorFlow data sets only."
            )
        return BoxesFolderSource(dataset.removeprefix(datasets.BOXES_PREFIX), masks, strict)
    items = dataset.removeprefix(datasets.SCENES).removeprefix(":") or datasets.DIGITS
    return ScenesSource(open_source(items, data_dir, download), dataset)
