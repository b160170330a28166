"""Reports runs side by side: reads them, draws, and writes HTML, Markdown and pictures."""

import pathlib
from collections.abc import Sequence

from tfcq.errors import UserError
from tfcq.evaluation.data import calibration_images, labelled_images
from tfcq.evaluation.features import QuantizedFeatures
from tfcq.evaluation.run_subject import trained_backbone
from tfcq.post_training.plan import Plan, PostTraining
from tfcq.reporting.detection_record import read_detector
from tfcq.reporting.embedding import Embedding, tsne
from tfcq.reporting.kernels import read_backbone
from tfcq.reporting.page import picture_files, to_html, to_markdown
from tfcq.reporting.report_folder import check_report_folder, write_report
from tfcq.reporting.run_record import RunRecord, read_run
from tfcq.reporting.sections import Embeddings, report_sections, report_title
from tfcq.reporting.summary import Group, group_runs
from tfcq.settings.bitwidths import BitWidth
from tfcq.settings.fields import flat
from tfcq.settings.recipes import recipe_named
from tfcq.settings.run_folder import RunFolder
from tfcq.settings.training import Config

TSNE_SEED = 0


def report(
    runs: Sequence[tuple[RunFolder, Config]],
    output: pathlib.Path,
    overwrite: bool = False,
    tsne_bits: Sequence[BitWidth] = (),
    tsne_images: int | None = None,
    tsne_needed: bool = False,
    detectors: Sequence[pathlib.Path] = (),
) -> pathlib.Path:
    """Reads runs, draws, and writes HTML, Markdown and pictures.

    Args:
        runs: folder and settings of each run; the others are compared to the first.
        output: folder of the report.
        overwrite: whether an earlier report there is replaced.
        tsne_bits: bit-widths at which features are drawn; none loads neither images nor models.
        tsne_images: how many test images are drawn at most; None for all.
        tsne_needed: whether data that cannot be had are an error instead of a note in the report.
        detectors: folders of detectors that are in none of the runs.

    Returns:
        The HTML file.

    Raises:
        UserError: when a file of a run cannot be read, or the folder must not be taken.
    """
    check_report_folder(output, overwrite)
    records = [_record(folder, config) for folder, config in runs]
    groups = group_runs(records)
    backbones = {run.path: read_backbone(run.backbone) for run in records if run.backbone}
    embeddings = _embeddings(groups, tsne_bits, tsne_images, tsne_needed)
    found = {str(folder): read_detector(folder) for folder in detectors}
    title = report_title(groups, list(found))
    sections = report_sections(groups, backbones, embeddings, found)
    files = {
        "report.html": to_html(title, sections).encode(errors="backslashreplace"),
        "report.md": to_markdown(title, sections).encode(errors="backslashreplace"),
        **picture_files(sections),
    }
    write_report(output, files, overwrite)
    print(f"Report: {output / 'report.html'}\nMarkdown: {output / 'report.md'}")
    return output / "report.html"


def _record(folder: RunFolder, config: Config) -> RunRecord:
    asked, settings = folder.asked(config), flat(config)
    return read_run(
        str(folder.path),
        settings,
        {name: value for name, value in settings.items() if name in asked},
        _bits(config),
        folder.backbone,
        folder.history,
        folder.evaluation,
        _figures_of_export(folder),
        folder.detection,
    )


def _figures_of_export(folder: RunFolder) -> pathlib.Path:
    """Returns the figures of the usual export of a run, or else of the first of its others."""
    usual = folder.export / "int8.json"
    others = [file.with_suffix(".json") for file in sorted(folder.export.glob("*.tflite"))]
    return next((file for file in [usual, *others] if file.exists()), usual)


def _bits(config: Config) -> str:
    """Returns in words which bits a training draws."""
    method = config.method
    recipe = recipe_named(method.recipe)
    if not recipe.draws:
        return "none: every pass is float"
    bits = recipe.bits(method.weight_bits, method.activation_bits, method.precision_set)
    if bits["precision_set"] is not None:
        drawn = f"{bits['precision_set']}, for weights and activations alike"
    else:
        drawn = f"weights {bits['weight_bits']}, activations {bits['activation_bits']}"
    return f"{drawn}, schedule {method.bit_schedule}"


def _embeddings(
    groups: Sequence[Group], bits: Sequence[BitWidth], images: int | None, needed: bool
) -> Embeddings:
    """Returns the features of each group's first ended run in the plane."""
    if not bits:
        return Embeddings(notes=("Not drawn: --tsne_bits is empty.",))
    drawn, notes = [], []
    for group in groups:
        run = next((run for run in group.runs if run.backbone), None)
        if run is None:
            notes.append(f"{group.name}: no run has ended, so there are no features to draw.")
            continue
        try:
            drawn.append(_embedding(group.name, RunFolder(run.path), bits, images))
        except UserError as error:
            if needed:
                raise
            notes.append(f"{group.name}: {error}")
    return Embeddings(tuple(drawn), tuple(notes))


def _embedding(
    name: str, folder: RunFolder, bits: Sequence[BitWidth], images: int | None
) -> Embedding:
    run = folder.load()
    backbone = trained_backbone(folder, run)
    split, data = labelled_images(run.data, backbone.input_shape, fitted=False)
    calibration = calibration_images(data.train_images, None, None)
    features = QuantizedFeatures(PostTraining(backbone, calibration, Plan()).at)
    shown = data.test_images[:images]
    points = {}
    for bit_width in bits:
        points[str(bit_width)] = tsne(features(shown, bit_width), TSNE_SEED)
        print(f"t-SNE of {name} at {bit_width}: {len(shown)} images", flush=True)
    class_names = tuple(split.class_names or ())
    return Embedding(name, points, data.test_labels[:images], class_names, run.data.dataset)
