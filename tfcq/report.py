"""Reports runs as HTML and Markdown: `python -m tfcq.report RUN [RUN ...] --output=DIR`."""

import pathlib

from tfcq import command_line
from tfcq.errors import UserError
from tfcq.reporting.detection_record import is_detector
from tfcq.reporting.report_folder import check_report_folder
from tfcq.settings.bitwidths import parse_bit_widths
from tfcq.settings.run_folder import RunFolder

# SSQL, Fig. 4.
TSNE_BITS = "fp,4w4a,2w8a,2w4a"
TSNE_IMAGES = 5000


def flag_set() -> command_line.FlagSet:
    """Returns the command's flags."""
    flags = command_line.FlagSet(
        "Reports runs as one HTML page and as Markdown: python -m tfcq.report RUN [RUN ...]",
        arguments="folders of runs, the others compared to the first, or of detectors "
        "(--output_dir of tfcq.detect)",
        examples=("python -m tfcq.report RUN RUN --output=DIR",),
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
    paths = [pathlib.Path(path) for path in command.arguments]
    resolved = [path.resolve() for path in paths]
    for path, place in zip(paths, resolved, strict=True):
        if resolved.count(place) > 1:
            raise UserError(f"Run {str(path)!r} is named twice; name it once.")
    detectors = [path for path in paths if is_detector(path)]
    folders = [RunFolder(path) for path in paths if path not in detectors]
    for name in ("tsne_bits", "tsne_images") if not folders else ():
        if name in command.given:
            raise UserError(f"--{name} has no effect here: no run is named; leave it out.")
    configs = [folder.load_unfinished() for folder in folders]
    output = pathlib.Path(values["output"])
    check_report_folder(output, values["overwrite"])
    command_line.quiet_start_up(values["verbosity"])
    from tfcq.reporting.run import report

    page = report(
        list(zip(folders, configs, strict=True)),
        output,
        values["overwrite"],
        bits,
        values["tsne_images"],
        "tsne_bits" in command.given,
        detectors,
    )
    print(f"Next: open {page} in a browser")


if __name__ == "__main__":
    command_line.run(flag_set(), main)
