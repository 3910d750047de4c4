"""`latentloom explain`: which nodes would run, which would be reused, and why."""

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import click

from server.options import PRECISIONS, allow_pickle
from server.settings import Settings, WrongRequest, wrong_requests

if TYPE_CHECKING:
    from nodes.precision import PrecisionChoice


@click.command(
    epilog="""\b
Examples:
  latentloom explain my_workflow.json              # compared with the last run
  latentloom explain new.json --against old.json
  latentloom explain text_to_image --set KSampler.steps=30"""
)
@click.argument("file")
@click.option("--against", metavar="FILE", help="Compare with this workflow.")
@click.option("--last", is_flag=True, help="Compare with the last run in the data folder (this is the default).")
@click.option("--set", "overrides", multiple=True, metavar="NODE.INPUT=VALUE", help="Change an input, as for run.")
@click.option("--seed", type=click.IntRange(0, 2**64 - 1), help="The seed of every sampler, as for run.")
@click.option("--precision", type=click.Choice(PRECISIONS), default="auto", help="As for run.")
@allow_pickle
@click.pass_obj
def explain(
    settings: Settings,
    file: str,
    against: str | None,
    last: bool,
    overrides: tuple[str, ...],
    seed: int | None,
    precision: "PrecisionChoice",
) -> None:
    """Say for every node of the workflow in FILE whether it would run or be reused, and why. Nothing is run."""
    from graph.describe import object_info
    from graph.explain import explain, record
    from graph.problems import describe_step
    from nodes.engine import Engine, usual_store
    from server.last_run import recall
    from server.overrides import override
    from workflows.documents import read_document

    if against is not None and last:
        raise WrongRequest("--against and --last exclude each other: compare with one of them")
    with wrong_requests():
        folders = settings.folders()
        catalogue = settings.catalogue(folders)
        describe = partial(object_info, catalogue, folders)
        engine = Engine(folders, catalogue=catalogue, store=usual_store(folders), precision=precision)
        graph = engine.resolve(override(read_document(file, describe).workflow, catalogue, overrides, seed))
        if against is None:
            before = recall(folders)
        else:
            other = engine.resolve(read_document(against, describe).workflow)
            before = record(other, engine.keys(other))
    explained = explain(graph, engine.keys(graph), engine.found(graph), before)
    for each in explained:
        place = describe_step(each.step.id, each.step.node.name, each.step.title)
        reasons = "; ".join(map(str, each.reasons))
        click.echo(f"{each.outcome:<10}  {place}{f': {reasons}' if reasons else ''}")
    counts = Counter(each.outcome for each in explained)
    maybe = f", {counts['may run']} may" if counts["may run"] else ""
    click.echo(f"{counts['run']} would run{maybe}, {counts['reused'] + counts['not needed']} not", err=True)
