"""The command line: one thin file per command. Ray and torch are imported on first use."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import salip_ray
from salip_ray.cli.calibrate import calibrate
from salip_ray.cli.config import config
from salip_ray.cli.consensus import consensus
from salip_ray.cli.demo import demo
from salip_ray.cli.doctor import doctor
from salip_ray.cli.errors import errors
from salip_ray.cli.evaluate import evaluate
from salip_ray.cli.export import export, import_review
from salip_ray.cli.label import label
from salip_ray.cli.plan import plan
from salip_ray.cli.report import report
from salip_ray.cli.reproduce import reproduce
from salip_ray.cli.retry import retry
from salip_ray.cli.review import review
from salip_ray.cli.show import show
from salip_ray.cli.status import status
from salip_ray.cli.submit import stop, submit
from salip_ray.cli.tasks import tasks
from salip_ray.cli.tune import tune
from salip_ray.cli.verify import verify
from salip_ray.cli.volumes import dicom_seg, nifti
from salip_ray.cli.weights import weights
from salip_ray.errors import JobError, SalipError

__all__ = ["app"]


_OUT_OF_MEMORY = (
    "the memory of this process ran out: raise its limit (ulimit, container), or use a machine "
    "with more memory"
)


class _OneLineErrors(TyperGroup):
    """A group of commands that report an error of the package as one line on stderr.

    The exit status is 2 if the arguments, input or environment are wrong, and 1 if the job ran but
    its result is not acceptable.
    """

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except SalipError as error:
            typer.echo(f"salip-ray: {error}", err=True)
            raise typer.Exit(1 if isinstance(error, JobError) else 2) from None
        except MemoryError:
            typer.echo(f"salip-ray: {_OUT_OF_MEMORY}", err=True)
            raise typer.Exit(1) from None


app = typer.Typer(
    name="salip-ray",
    cls=_OneLineErrors,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"salip-ray {salip_ray.__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Segment organs in medical images without training, in bulk.

    SAM proposes candidates, CLIP retrieves those that fit a description, and SAM segments them from
    their boxes. Ray Data runs this over folders and buckets. Research use only: not a medical
    device.
    """


app.command()(label)
app.command()(config)
app.command()(tasks)
app.command()(plan)
app.command()(demo)
app.command()(errors)
app.command()(retry)
app.command()(consensus)
app.command()(status)
app.command()(verify)
app.command()(evaluate)
app.command()(calibrate)
app.command()(report)
app.command()(show)
app.command()(tune)
app.command()(reproduce)
app.command()(submit)
app.command()(stop)
app.command()(doctor)
export.command()(nifti)
export.command(name="dicom-seg")(dicom_seg)
app.add_typer(export, name="export")
app.command()(review)
app.command()(import_review)
app.add_typer(weights, name="weights")
