"""``wetread models``: which versions of models are on this machine, are they whole, and which do the pipelines use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table
from rich.text import Text

from node.cli.options import models_of, out, settings_of
from node.errors import NodeError
from node.settings import Settings

if TYPE_CHECKING:
    from pipelines.models.installed import Installed, Models

RESTART = "What reads already goes on as it is: restart the worker (wetread up, or wetread work)."


@click.group()
def models() -> None:
    """List, verify, import, promote and roll back the models of this machine.

    \b
    Example: wetread models list
             wetread models import ours/mr_brain-1.1.0.json
             wetread models promote mr_brain 1.1.0
    """


@contextmanager
def _models(context: click.Context) -> Iterator[Models]:
    """The models of the settings; a mistake is one sentence."""
    from pipelines.models.installed import ModelFault, Models

    try:
        yield Models(models_of(settings_of(context)))
    except ModelFault as fault:
        raise NodeError(str(fault)) from fault


@models.command("list")
@click.pass_context
def list_models(context: click.Context) -> None:
    """Show every version with its size, its terms, and whether its weights are whole.

    \b
    Example: wetread models list
    """
    with _models(context) as found:
        table = Table("Model", "Version", "In use", "From", "Networks", "MB", "Weights")
        terms = []
        for each in found.all():
            in_use = "yes" if found.in_use(each.name) == each.version else ""
            size = f"{each.weights.stat().st_size / 1e6:.1f}" if each.weights.is_file() else "–"
            fault = each.fault()
            state = Text("damaged", "red") if fault else Text("verified", "green")
            origin = "shipped" if each.is_shipped else "this site"
            table.add_row(each.name, each.version, in_use, origin, each.networks, size, state)
            terms.append(f"{each.name} {each.version}: {each.terms}")
    out.print(table)
    out.print("Terms of the weights", style="bold")
    for line in terms:
        out.print(line, markup=False)


@models.command()
@click.argument("name")
@click.argument("version", required=False)
@click.pass_context
def show(context: click.Context, name: str, version: str | None) -> None:
    """Show the card of a model, by default of the version in use, and what was done with it here.

    \b
    Example: wetread models show mr_brain
    """
    with _models(context) as found:
        chosen = found.get(name, version)
        page = chosen.card.with_suffix(".md")
        out.print((page if page.is_file() else chosen.card).read_text(), markup=False, soft_wrap=True)
        for line in found.history(name):
            before = f" in place of {line['before']}" if line.get("before") else ""
            out.print(f"{line['time']} {line['event']} {line['version']}{before} by {line['by']}", markup=False)


@models.command()
@click.pass_context
def verify(context: click.Context) -> None:
    """Compare all weights with the digests on their cards; exit status 1 if any is damaged.

    \b
    Example: wetread models verify
    """
    with _models(context) as found:
        checked = [(each, each.fault()) for each in found.all()]
    for each, fault in checked:
        out.print(f"{each.name} {each.version}: {fault or 'verified'}", markup=False, soft_wrap=True)
    damaged = sum(fault is not None for _, fault in checked)
    if damaged:
        raise NodeError(f"{damaged} of {len(checked)} models are damaged: install them again")


@models.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.pass_context
def import_model(context: click.Context, file: Path) -> None:
    """Take a site's own version in: FILE.json with its .safetensors beside it. It is not used until it is promoted.

    \b
    Example: wetread models import ours/mr_brain-1.1.0.json
    """
    settings = settings_of(context)
    with _models(context) as found:
        taken = found.add(file, lambda each: _loads(settings, each))
    out.print(f"imported {taken.name} {taken.version}; to use it: wetread models promote {taken.name} {taken.version}")


@models.command()
@click.argument("name")
@click.argument("version")
@click.pass_context
def promote(context: click.Context, name: str, version: str) -> None:
    """Let the pipelines use this version from now on.

    \b
    Example: wetread models promote mr_brain 1.1.0
    """
    settings = settings_of(context)
    with _models(context) as found:
        chosen = found.promote(name, version, lambda each: _loads(settings, each))
    out.print(f"{chosen.name} {chosen.version} is in use. {RESTART}")


@models.command()
@click.argument("name")
@click.pass_context
def rollback(context: click.Context, name: str) -> None:
    """Go back to the version that was in use before.

    \b
    Example: wetread models rollback mr_brain
    """
    with _models(context) as found:
        chosen = found.rollback(name)
    out.print(f"{chosen.name} {chosen.version} is in use again. {RESTART}")


def _loads(settings: Settings, model: Installed) -> None:
    """Make the pipelines of this model from it.

    Raises:
        ModelFault: If no pipeline of the settings is of this model, or one cannot load it; the sentence says why.
    """
    from pipelines import registry
    from pipelines.instance import one_sentence
    from pipelines.models.installed import Installed, ModelFault

    fitting = []
    for name, line in settings.pipelines.items():
        with suppress(registry.PipelineNotFound):  # another pipeline's fault, and doctor's to say
            card = registry.own_card(line.use)
            fitting += [name] if card and Installed.read(card).name == model.name else []
    if not fitting:
        known = ", ".join(settings.pipelines)
        raise ModelFault(f"no pipeline of the settings ({known}) goes by a model {model.name}")
    for name in fitting:
        try:
            registry.load_with(settings.pipelines[name].use, model.card)
        except Exception as error:  # what a pipeline meets while it loads is its own affair
            raise ModelFault(f"{name} cannot load {model.card}: {one_sentence(error)}") from error
