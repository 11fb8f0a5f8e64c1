"""A registered model on its way to a cluster."""

from __future__ import annotations

from typing import Annotated

import typer

from plumb.commands.base import MODEL, Json, Of, app, product_of, show


@app.command(rich_help_panel=MODEL)
def promote(
    model: Annotated[str, typer.Argument(metavar="MODEL_VERSION", help="A version's number, or an alias.")],
    env: Annotated[str, typer.Option("--env", help="The environment: a folder below k8s/PRODUCT/overlays.")],
    product: Of = "churn",
    storage_uri: Annotated[
        str | None, typer.Option(help="Where the cluster fetches the files; default: where the registry has them.")
    ] = None,
    push: Annotated[bool, typer.Option("--push", help="Push the branch to the remote, for a pull request.")] = False,
    json: Json = False,
) -> None:
    """Ship a registered model to an environment: one file, one commit, on a branch of its own; prints the diff.

    The file names version, run, digest, signature and storage; the canary begins when the commit is merged and Argo CD
    syncs it. Undo is one `git revert`. Refused: a version whose files are not those that were signed or whose gates did
    not all pass (exit code 3), and a checkout with changes.

    Example: plumb promote --env dev 1
    """

    from plumbline.registry.signing import DEMO_KEY
    from serving import promote

    found = promote.promote(product_of(product), env, model, storage_uri, push)
    diff = found.pop("diff", "")
    if json:
        show({**found, "diff": diff}, True)
        return
    print(diff, end="")
    show({name: ", ".join(told) if isinstance(told, list) else told for name, told in found.items()}, False)
    if 'storageUri: "file://' in diff:
        print("note: a file:// is fetched by pods of this machine only; --storage-uri names where a cluster finds it")
    if str(found.get("signed_by", "")).startswith(DEMO_KEY):
        print("note: a demo key says nothing about who signed: PLUMBLINE_SIGNING_KEY, then `plumb register` signs anew")
