"""Reports runs as HTML and Markdown: `python -m tfcq.report RUN [RUN ...] --output=DIR`."""

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tfcq import command_line
from tfcq.config import CALIBRATION_IMAGES, Config, flat
from tfcq.errors import UserError
from tfcq.pretraining.recipes import recipe_named
from tfcq.quantization.bitwidths import BitWidth, parse_bit_widths
from tfcq.reporting.report_folder import check_report_folder, write_report
from tfcq.run_folder import RunFolder

if TYPE_CHECKING:
    from tfcq.reporting.embedding import Embedding
    from tfcq.reporting.run_record import RunRecord
    from tfcq.reporting.sections import Embeddings
    from tfcq.reporting.summary import Group

# SSQL, Fig. 4.
TSNE_BITS = "fp,4w4a,2w8a,2w4a"
TSNE_IMAGES = 5000
TSNE_SEED = 0


def flag_set() -> command_line.FlagSet:
    """Returns the command's flags."""
    flags = command_line.FlagSet(
        "Reports runs as one HTML page and as Markdown: python -m tfcq.report RUN [RUN ...]",
        arguments="folders of runs; the others are compared to the first",
    )
    flags.add("Report", "output", str, None, "folder of the report")
    flags.add("Report", "overwrite", bool, False, "replace an earlier report in that folder")
    text = "bit-widths at which features are drawn, such as fp,4w4a; empty for none"
    flags.add("Report", "tsne_bits", str, TSNE_BITS, text)
    flags.add("Report", "tsne_images", int, TSNE_IMAGES, "draw so many test images at most")
    return flags


def main(command: command_line.Command) -> None:
    """Reports runs.

    Args:
        command: the parsed command line.
    """
    values = command.values
    if not command.arguments:
        raise UserError("No run is named; allowed: python -m tfcq.report RUN [RUN ...].")
    if values["output"] is None:
        raise UserError("--output is missing; give a folder for the report.")
    bits = parse_bit_widths(values["tsne_bits"]) if values["tsne_bits"].strip() else ()
    if values["tsne_images"] < 5:
        raise UserError(
            f"--tsne_images={values['tsne_images']} cannot be used; allowed: 5 and above."
        )
    if "tsne_images" in command.given and not bits:
        raise UserError("--tsne_images has no effect here: --tsne_bits is empty; leave it out.")
    folders = [RunFolder(path) for path in command.arguments]
    resolved = [folder.path.resolve() for folder in folders]
    for folder, place in zip(folders, resolved, strict=True):
        if resolved.count(place) > 1:
            raise UserError(f"Run {str(folder.path)!r} is named twice; name it once.")
    configs = [folder.load_unfinished() for folder in folders]
    output = pathlib.Path(values["output"])
    check_report_folder(output, values["overwrite"])
    command_line.quiet_start_up(values["verbosity"])
    report(
        list(zip(folders, configs, strict=True)),
        output,
        values["overwrite"],
        bits,
        values["tsne_images"],
        "tsne_bits" in command.given,
    )


def report(
    runs: Sequence[tuple[RunFolder, Config]],
    output: pathlib.Path,
    overwrite: bool = False,
    tsne_bits: Sequence[BitWidth] = (),
    tsne_images: int = TSNE_IMAGES,
    tsne_needed: bool = False,
) -> pathlib.Path:
    """Reads runs, draws, and writes HTML, Markdown and pictures.

    Args:
        runs: folder and settings of each run; the others are compared to the first.
        output: folder of the report.
        overwrite: whether an earlier report there is replaced.
        tsne_bits: bit-widths at which features are drawn; none loads neither images nor models.
        tsne_images: how many test images are drawn at most.
        tsne_needed: whether data that cannot be had are an error instead of a note in the report.

    Returns:
        The HTML file.

    Raises:
        UserError: when a file of a run cannot be read, or the folder must not be taken.
    """
    from tfcq.reporting.kernels import read_backbone
    from tfcq.reporting.page import picture_files, to_html, to_markdown
    from tfcq.reporting.sections import report_sections, report_title
    from tfcq.reporting.summary import group_runs

    check_report_folder(output, overwrite)
    records = [_record(folder, config) for folder, config in runs]
    groups = group_runs(records)
    backbones = {run.path: read_backbone(run.backbone) for run in records if run.backbone}
    embeddings = _embeddings(groups, tsne_bits, tsne_images, tsne_needed)
    title, sections = report_title(groups), report_sections(groups, backbones, embeddings)
    files = {
        "report.html": to_html(title, sections).encode(),
        "report.md": to_markdown(title, sections).encode(),
        **picture_files(sections),
    }
    write_report(output, files, overwrite)
    print(f"Report: {output / 'report.html'}\nMarkdown: {output / 'report.md'}")
    return output / "report.html"


def _record(folder: RunFolder, config: Config) -> "RunRecord":
    from tfcq.reporting.run_record import read_run

    defaults = flat(Config())
    settings = flat(config)
    return read_run(
        str(folder.path),
        settings,
        {name: value for name, value in settings.items() if value != defaults[name]},
        _bits(config),
        folder.backbone,
        folder.history,
        folder.evaluation,
        folder.export / "int8.json",
    )


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
    groups: "Sequence[Group]", bits: Sequence[BitWidth], images: int, needed: bool
) -> "Embeddings":
    """Returns the features of each group's first ended run in the plane."""
    from tfcq.reporting.sections import Embeddings

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


def _embedding(name: str, folder: RunFolder, bits: Sequence[BitWidth], images: int) -> "Embedding":
    from tfcq import build, evaluation_data
    from tfcq.data.image_stream import as_array
    from tfcq.evaluation.features import QuantizedFeatures
    from tfcq.post_training.plan import Plan, PostTraining
    from tfcq.reporting.embedding import Embedding, tsne

    backbone = build.trained_backbone(folder)
    split, data = evaluation_data.labelled_images(folder.load().data, backbone)
    calibration = as_array(data.train_images[:CALIBRATION_IMAGES])
    features = QuantizedFeatures(PostTraining(backbone, calibration, Plan()).at)
    shown = data.test_images[:images]
    points = {}
    for bit_width in bits:
        points[str(bit_width)] = tsne(features(shown, bit_width), TSNE_SEED)
        print(f"t-SNE of {name} at {bit_width}: {len(shown)} images", flush=True)
    return Embedding(name, points, data.test_labels[:images], tuple(split.class_names))


if __name__ == "__main__":
    command_line.run(flag_set(), main)
